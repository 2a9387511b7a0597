package kms

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// How long import parameters serve, and how many of a namespace there may be at
// once: each is a key on the token.
const (
	DefaultImportTTL = 24 * time.Hour
	MinImportTTL     = time.Minute // a second in dev mode
	MaxImportTTL     = 7 * 24 * time.Hour
	MaxImportJobs    = 100
)

// ImportParametersRequest asks for a key to wrap a key to that is to be imported.
// With Key they serve that key only, which may exist or not; else any of the
// namespace. Algorithm may be empty for a key that exists, Protection then too; else
// that is Software. A nil TTL means DefaultImportTTL.
type ImportParametersRequest struct {
	Namespace, Key string
	Algorithm      string
	Protection     Protection
	TTL            *time.Duration
	SingleUse      bool
	Idempotency    string
}

// ImportParameters say to what a key is to be wrapped, as package keywrap describes,
// and for what.
type ImportParameters struct {
	Namespace    string     `json:"namespace"`
	Job          ObjectID   `json:"job"` // by which an import refers to them
	Key          string     `json:"key,omitempty"`
	Algorithm    string     `json:"algorithm"`
	Protection   Protection `json:"protection"`
	PublicKeyPEM string     `json:"public_key_pem"`
	Method       string     `json:"method"` // as keywrap.Method names it
	Hash         string     `json:"hash"`   // of OAEP and its MGF1, as keywrap.HashName names it
	SingleUse    bool       `json:"single_use,omitempty"`
	Created      time.Time  `json:"created"`
	Expires      time.Time  `json:"expires"`
}

// importRecord is an import job: at import/ while its wrapping key is on the token,
// under the job's own id, and then for a while at endedimport/, so that who comes
// late is told what became of it.
type importRecord struct {
	ImportParameters
	NamespaceID ID     `json:"namespace_id"`
	Wrapping    string `json:"wrapping"`        // algorithm of the wrapping key
	PublicKey   []byte `json:"public_key"`      // SubjectPublicKeyInfo, DER
	Token       string `json:"token,omitempty"` // which has the wrapping key; empty: the default one
	Used        bool   `json:"used,omitempty"`
}

// wrappingBits is the size of a wrapping key's modulus.
const wrappingBits = 3072

// importMemory is how long a job that ended is remembered.
const importMemory = 7 * 24 * time.Hour

// actionEndImport is the action of a job that expired, in the log.
const actionEndImport policy.Action = "EndImport"

func prefixImports(ns ID) string            { return prefixImport + ns.String() + "/" }
func pathImport(ns ID, job ObjectID) string { return prefixImports(ns) + job.String() }
func pathImportEnd(ns ID, job ObjectID) string {
	return prefixImportEnd + ns.String() + "/" + job.String()
}

// wrappingKey is a kind of key on the token, and the hash of its OAEP.
type wrappingKey struct {
	algorithm string
	hash      crypto.Hash
}

// wrappingKeys are the kinds of wrapping keys, the best first. SoftHSM2, for one,
// does OAEP with SHA-1 only, which is no weakness there: OAEP asks for no resistance
// to collisions.
var wrappingKeys = []wrappingKey{
	{"RSA_OAEP_3072_SHA256", crypto.SHA256},
	{"RSA_OAEP_3072_SHA1", crypto.SHA1},
}

// GetImportParameters has the token make a key that material is wrapped to.
func (s *Service) GetImportParameters(ctx context.Context, call Call, q ImportParametersRequest) (ImportParameters, error) {
	p := &importPlan{q: q}
	c := change{action: policy.ImportKey, namespace: q.Namespace, key: q.Key, idempotency: q.Idempotency, check: s.checkParameters(q),
		request:  struct{ P, N, K, A, L, T, S any }{"parameters", q.Namespace, q.Key, q.Algorithm, q.Protection, q.TTL, q.SingleUse},
		resource: func(ctx context.Context) (*policy.Resource, error) { return s.parametersResource(ctx, p) },
		prepare:  func(ctx context.Context, t *trace) (func(), error) { return s.prepareParameters(ctx, t, p) }}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (ImportParameters, error) {
		return s.planParameters(ctx, t, tx, p)
	})
}

// importPlan is a request for parameters with what was found for it.
type importPlan struct {
	q          ImportParametersRequest
	key        *key // nil if there is none yet
	algorithm  *keyring.Algorithm
	protection Protection
}

func (s *Service) checkParameters(q ImportParametersRequest) error {
	err := errors.Join(checkNamespaceName(q.Namespace), checkProtection(q.Protection), s.checkImportTTL(q.TTL))
	if q.Algorithm != "" {
		_, unknown := s.resolveFor(q.Namespace, q.Protection, "", q.Algorithm)
		err = errors.Join(err, unknown)
	} else if q.Key == "" {
		err = errors.Join(err, invalid("algorithm", "is missing; say what the key to be imported is for, ListAlgorithms names them"))
	}
	return err
}

func (s *Service) checkImportTTL(ttl *time.Duration) error {
	shortest := MinImportTTL
	if s.installation.DevMode {
		shortest = time.Second
	}
	if ttl != nil && (*ttl < shortest || *ttl > MaxImportTTL) {
		return invalid("ttl", "is %s; use %s to %s, or leave it out for %s", *ttl, shortest, MaxImportTTL, DefaultImportTTL)
	}
	return nil
}

// parametersResource is the namespace, or the key, whether it exists or is to be.
func (s *Service) parametersResource(ctx context.Context, p *importPlan) (resource *policy.Resource, err error) {
	if p.q.Key == "" {
		resource, _, err = s.namespaceResource(ctx, p.q.Namespace)
	} else {
		resource, p.key, err = s.keyResource(ctx, p.q.Namespace, p.q.Key)
	}
	if reasonOf(err) == "KEY_NOT_FOUND" && checkName("key", p.q.Key) == nil { // it is to be made, which an id cannot be
		err = nil
		if a, ok := keyring.Lookup(p.q.Algorithm); ok {
			resource.Purpose, resource.Algorithm, resource.Protection = string(a.Purpose()), a.Name(), string(orSoftware(p.q.Protection))
		}
	}
	if err == nil {
		err = s.usable(p.q.Namespace)
	}
	return resource, err
}

func orSoftware(p Protection) Protection {
	if p == "" {
		return Software
	}
	return p
}

// resolve completes what is asked for from the key that exists.
func (s *Service) resolve(p *importPlan) (err error) {
	name := p.q.Algorithm
	p.protection = orSoftware(p.q.Protection)
	if k := p.key; k != nil {
		switch {
		case k.State != KeyActive:
			return errKeyDeleted(k.Key)
		case k.Framing != FramingNative:
			return k.framed(FramingNative)
		case name != "" && name != k.Algorithm:
			return errImportMismatch("algorithm", k.Name, k.Algorithm, name)
		case p.q.Protection != "" && p.q.Protection != k.Protection:
			return errImportMismatch("protection_level", k.Name, string(k.Protection), string(p.q.Protection))
		}
		name, p.protection = k.Algorithm, k.Protection
	} else if name == "" {
		return invalid("algorithm", "is missing, and there is no key %s yet; say what the key to be imported is for", clip(p.q.Key))
	}
	p.algorithm, err = s.resolveFor(p.q.Namespace, p.protection, "", name)
	return err
}

// errImportMismatch refuses to import into a key what is none of its kind.
func errImportMismatch(field, name, has, other string) *Error {
	e := precondition("IMPORT_MISMATCH", "%s of key %s is %s, not %s, and each of its versions has the same; get import parameters for that, or import a new key", field, name, has, other)
	e.Field = field
	return e
}

func (s *Service) prepareParameters(ctx context.Context, t *trace, p *importPlan) (done func(), err error) {
	done = func() {}
	ns, err := s.findNamespace(ctx, p.q.Namespace)
	for _, check := range []func() error{
		func() error { return err },
		func() error { return s.refusal(ns) },
		func() error { return s.resolve(p) },
		func() error { return s.checkImportJobs(ctx, ns) },
	} {
		if err := check(); err != nil {
			return done, err
		}
	}
	algorithm, err := s.wrappingAlgorithm(ns)
	if err != nil {
		return done, err
	}
	done, err = s.makeObject(ctx, t, ns, objectRecord{Algorithm: algorithm})
	if errors.Is(err, ErrKeyAlgorithm) {
		err = &Error{Code: FailedPrecondition, Reason: "NO_WRAPPING_KEY", Cause: err,
			Message: "the token makes no RSA keys of 3072 bits that decrypt with OAEP, so nothing can be imported"}
	}
	return done, err
}

// checkImportJobs refuses more wrapping keys than a namespace may have.
func (s *Service) checkImportJobs(ctx context.Context, ns *namespace) error {
	page, err := s.store.List(ctx, prefixImports(ns.ID), "", MaxImportJobs)
	if err != nil {
		return storeError(err)
	}
	if len(page.Records) < MaxImportJobs {
		return nil
	}
	return &Error{Code: ResourceExhausted, Reason: "TOO_MANY_IMPORT_JOBS",
		Message: fmt.Sprintf("namespace %s has %d import jobs, which is the limit; use one of them, ask for single_use and a shorter ttl, or wait until they expire", ns.Name, MaxImportJobs)}
}

// wrappingAlgorithm is the best that the token makes.
func (s *Service) wrappingAlgorithm(ns *namespace) (string, error) {
	hsm, err := s.tokenHSM(ns.Token)
	if err != nil {
		return "", err
	}
	best := wrappingKeys[0].algorithm
	if able := hsm.Status().KeyAlgorithms; len(able) > 0 && !slices.Contains(able, best) {
		return wrappingKeys[1].algorithm, nil
	}
	return best, nil
}

func (s *Service) planParameters(ctx context.Context, t *trace, tx *transaction, p *importPlan) (ImportParameters, error) {
	ns, err := s.findNamespace(ctx, p.q.Namespace)
	if err == nil {
		err = s.refusal(ns)
	}
	if err != nil {
		return ImportParameters{}, err
	}
	n := t.object
	if n == nil {
		return ImportParameters{}, storeError(store.ErrConflict)
	}
	record := importRecord{NamespaceID: ns.ID, Token: n.token, Wrapping: n.Algorithm, PublicKey: n.PublicKey}
	if record.ImportParameters, err = s.describeImport(p, ns, n); err != nil {
		return ImportParameters{}, err
	}
	path := pathImport(ns.ID, n.ID)
	tx.delete(pathOrphan(n.ID), n.orphan)
	tx.put(s.system, path, 0, record)
	s.putDue(tx, record.Expires, due{Kind: dueImport, Path: path})
	tx.then(func(store.Revision) { n.taken = true })
	tx.detail("import_job", n.ID.String())
	tx.detail("algorithm", record.Algorithm)
	tx.detail("protection", string(record.Protection))
	tx.detail("method", record.Method)
	tx.detail("expires", record.Expires.Format(time.RFC3339))
	return record.ImportParameters, nil
}

func (s *Service) describeImport(p *importPlan, ns *namespace, n *newObject) (ImportParameters, error) {
	i := slices.IndexFunc(wrappingKeys, func(w wrappingKey) bool { return w.algorithm == n.Algorithm })
	parsed, err := x509.ParsePKIXPublicKey(n.PublicKey)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || i < 0 || public.N.BitLen() != wrappingBits { // the token is not believed blindly
		return ImportParameters{}, hsmError("", fmt.Errorf("the token's wrapping key is no %s", n.Algorithm))
	}
	name := p.q.Key
	if p.key != nil {
		name = p.key.Name // the caller may have given its id
	}
	ttl := DefaultImportTTL
	if p.q.TTL != nil {
		ttl = *p.q.TTL
	}
	now := s.now().UTC()
	hash := wrappingKeys[i].hash
	return ImportParameters{Namespace: ns.Name, Job: n.ID, Key: name, Algorithm: p.algorithm.Name(), Protection: p.protection,
		PublicKeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: n.PublicKey})),
		Method:       keywrap.Method(public.N.BitLen(), hash), Hash: keywrap.HashName(hash),
		SingleUse: p.q.SingleUse, Created: now, Expires: now.Add(ttl)}, nil
}

// liveImport returns a job that can be used to import a key of that name.
func (s *Service) liveImport(ctx context.Context, ns *namespace, text, name string) (stored[importRecord], error) {
	var id ObjectID
	if id.UnmarshalText([]byte(text)) != nil {
		return stored[importRecord]{}, invalid("import_job", "is not the id of an import job, which has 32 hexadecimal digits; GetImportParameters gives one")
	}
	job, err := read[importRecord](ctx, s, s.system, pathImport(ns.ID, id))
	if errors.Is(err, store.ErrNotFound) {
		return job, s.whyNoImport(ctx, ns, id)
	}
	switch {
	case err != nil:
		return job, err
	case !s.now().Before(job.value.Expires):
		return job, job.value.ended()
	case job.value.Key != "" && job.value.Key != name:
		return job, precondition("IMPORT_MISMATCH", "the import job serves key %s only; get import parameters for this key", job.value.Key)
	}
	return job, nil
}

func (s *Service) whyNoImport(ctx context.Context, ns *namespace, id ObjectID) error {
	ended, err := read[importRecord](ctx, s, s.system, pathImportEnd(ns.ID, id))
	switch {
	case err == nil:
		return ended.value.ended()
	case errors.Is(err, store.ErrNotFound):
		e := notFound("IMPORT_JOB_NOT_FOUND", "import job %s does not exist in namespace %s; get import parameters", id, ns.Name)
		e.Field = "import_job"
		return e
	}
	return err
}

func (r importRecord) ended() *Error {
	reason, message := "IMPORT_JOB_EXPIRED", "the import parameters expired at "+r.Expires.Format(time.RFC3339)
	if r.Used {
		reason, message = "IMPORT_JOB_USED", "the import parameters were for a single use and have been used"
	}
	e := precondition(reason, "%s; get new import parameters, and wrap the key to their public key", message)
	e.Field = "import_job"
	return e
}

// putImportEnd ends a job: its wrapping key is removed once the transaction is
// durable.
func (s *Service) putImportEnd(tx *transaction, job stored[importRecord]) {
	r := job.value
	path := pathImportEnd(r.NamespaceID, r.Job)
	tx.delete(pathImport(r.NamespaceID, r.Job), job.revision)
	tx.put(s.system, path, 0, r)
	s.putDue(tx, s.now().Add(importMemory).UTC(), due{Kind: dueForget, Path: path})
	s.putWrappingOrphan(tx, r)
}

// endImport ends a job that has expired, if it has not ended before.
func (s *Service) endImport(ctx context.Context, waiting store.Record, path string) error {
	tx := &transaction{}
	tx.delete(waiting.Key, waiting.Revision)
	job, err := read[importRecord](ctx, s, s.system, path)
	if errors.Is(err, store.ErrNotFound) {
		return storeError(tx.commit(ctx, s))
	}
	if err != nil {
		return err
	}
	s.putImportEnd(tx, job)
	tx.detail("import_job", job.value.Job.String())
	t := s.begin(Call{}, actionEndImport)
	t.entry.Principal = internalPrincipal
	t.on(job.value.Namespace, job.value.Key)
	if err = s.auditIntent(t, tx); err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	return s.conclude(t, err)
}

// endImports ends a page of the jobs of a DELETED namespace, and tells whether
// there may be more.
func (s *Service) endImports(ctx context.Context, ns *namespace) (more bool, err error) {
	page, err := s.store.List(ctx, prefixImports(ns.ID), "", removePage)
	if err != nil || len(page.Records) == 0 {
		return false, storeError(err)
	}
	tx := &transaction{}
	for _, record := range page.Records {
		tx.delete(record.Key, record.Revision)
		job, err := decode[importRecord](s.system, record)
		if err != nil { // its wrapping key stays on the token: the comparison reports it
			s.log.Error("a damaged record of an import job was removed with its namespace", "record", record.Key, "error", err)
			continue
		}
		s.putWrappingOrphan(tx, job.value)
	}
	tx.detail("import_jobs", fmt.Sprint(len(page.Records)))
	return true, s.auditedJob(ctx, ns, policy.DeleteNamespace, tx)
}

// putWrappingOrphan gives a wrapping key up, which is removed once the transaction
// is durable.
func (s *Service) putWrappingOrphan(tx *transaction, r importRecord) {
	tx.put(s.system, pathOrphan(r.Job), 0, orphanRecord{Namespace: r.NamespaceID, NamespaceName: r.Namespace, Created: s.now().UTC(), Doomed: true,
		objectRecord: objectRecord{Algorithm: r.Wrapping, Token: r.Token}})
	tx.then(func(store.Revision) { s.objects.soon() })
}
