package main

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/rig"
)

// The peer's engine, and the key that it must have there: aes256-gcm96, or none named.
const (
	peerMount = "transit"
	peerKey   = "bench"
)

// peerTarget is where another transit server is; ok tells whether there is one to measure.
func (o *figureOptions) peerTarget() (t load.Target, ok bool, err error) {
	if o.peer == "" {
		return t, false, nil
	}
	at, err := url.Parse(o.peer)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return t, false, fmt.Errorf("%w: -peer %q is no URL such as http://127.0.0.1:8200", errUsage, o.peer)
	}
	t = load.Target{Addr: at.Host, Plaintext: at.Scheme == "http", CAFile: os.Getenv("VAULT_CACERT"), Token: load.Token(os.Getenv("VAULT_TOKEN"))}
	if t.Token == "" {
		return t, false, fmt.Errorf("%w: -peer needs the other server's token in $VAULT_TOKEN", errUsage)
	}
	return t, true, nil
}

// besidePeer are the figures of the Vault-compatible API against the same work by another
// transit server, alone and in batches.
func (b *bench) besidePeer(encrypt, batch load.Work, mode rig.Mode) []subject {
	t, ok, _ := b.peerTarget() // filter has seen to the error
	if !ok {
		return nil
	}
	by := func(w load.Work) maker {
		return func(ctx context.Context) (probe, error) {
			w.Namespace, w.Key = peerMount, peerKey
			pool, err := load.Vault(ctx, t, w, callers)
			return newCalls(pool, err, os.Getpid(), w) // its processor time is not known, and not told
		}
	}
	return []subject{
		{name: "Vault encrypt 32 B, to the peer's", unit: opsPerSecond, predict: first, probe: b.vault(encrypt, mode, false), floors: probes(by(encrypt))},
		{name: "Vault encrypt, batch of 100 × 32 B, to the peer's", unit: itemsPerSecond, predict: first, probe: b.vault(batch, mode, false), floors: probes(by(batch))},
	}
}
