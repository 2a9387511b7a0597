package worker

import "time"

// method is what a request asks for: one method of hsm.Service or hsm.Keys. The
// arguments and results stand beside each method's handler.
type method byte

const (
	methodGenerateRoot method = 1 + iota
	methodFindRoot
	methodWrap
	methodUnwrap
	methodRandom
	methodGenerateSigner
	methodFindSigner
	methodSign
	methodProbe
	methodDestroy
	methodGenerateKey
	methodImportKey
	methodFindKey
	methodUseKey
	methodListKeys
)

// slowest bounds the making of a key, as package hsm does: of RSA it takes seconds
// in software and a minute in a smart card.
const slowest = 3 * time.Minute

// within is how long a call of a method may take, retries included: a worker that has
// not answered then is lost.
func (m method) within(timeout time.Duration) time.Duration {
	switch m {
	case methodGenerateRoot, methodGenerateKey, methodImportKey:
		timeout = max(timeout, slowest)
	}
	return timeout + grace(timeout)
}

// grace is how long after the timeout a worker may still answer.
func grace(timeout time.Duration) time.Duration {
	return min(max(timeout/4, 200*time.Millisecond), 2*time.Second)
}
