package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A namespace that is used and changed all the while is rekeyed, on one server
// and beside another, without a call that fails.
func TestRekeyUnderLoad(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 200 // counted in small blocks, rotated by use
	in.config.CacheBytes = 40_000
	in.config.JobInterval = 10 * time.Millisecond
	in.open()
	sealed := in.furnishForRekey()
	other := in.secondServer()
	ctx, stop := context.WithCancel(t.Context())
	load := &rekeyLoad{t: t, ctx: ctx, sealed: sealed}
	for w := range 4 {
		load.running.Go(func() { load.change(in.Service, fmt.Sprint("a", w)) })
		load.running.Go(func() { load.use(in.Service, w) })
	}
	load.running.Go(func() { load.use(other, 2) })
	load.running.Go(func() { load.change(other, "b") })
	for generation := range uint32(3) {
		before := load.calls.Load()
		in.beginRekey("pay")
		deadline := time.Now().Add(60 * time.Second)
		for n := in.describe("pay"); n.rekeying() && time.Now().Before(deadline) && !t.Failed(); n = in.describe("pay") {
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("generation %d: %d records, %d calls meanwhile", generation+2, in.describe("pay").Rekey.Records, load.calls.Load()-before)
		if load.calls.Load()-before < 50 {
			t.Error("too few calls to prove anything")
		}
	}
	stop()
	load.running.Wait()
	other.Close(t.Context())
	in.wantOnly("pay", 4)
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
	load.sealedSince.Range(func(text, ciphertext any) bool {
		in.wantOpens("pay", ciphertext.([]byte), text.(string))
		return true
	})
}

// secondServer opens another service on the same store.
func (in *testInstallation) secondServer() *Service {
	in.t.Helper()
	c := in.config
	c.Store, c.Audit, c.HSM, c.Clock = in.store, in.audit, in.device, in.now
	for range maxAttempts { // the first one's bookkeeping of intents may get in between
		if s, err := Open(context.Background(), c); CodeOf(err) != Aborted {
			return must[*Service](in.t)(s, err)
		}
	}
	in.t.Fatal("the second server does not start")
	return nil
}

type rekeyLoad struct {
	t           *testing.T
	ctx         context.Context
	sealed      map[string][]byte
	sealedSince sync.Map
	calls       atomic.Int64
	running     sync.WaitGroup
}

func (l *rekeyLoad) want(what string, err error) {
	l.calls.Add(1)
	if err != nil {
		l.t.Errorf("%s: %v, because of %v", what, err, errors.Unwrap(err))
	}
}

// use encrypts and decrypts with keys of every worker.
func (l *rekeyLoad) use(s *Service, worker int) {
	for n := 0; l.ctx.Err() == nil && !l.t.Failed(); n++ {
		name := fmt.Sprint("key", (worker*7+n)%40)
		text := fmt.Sprint(name, " by ", worker, " at ", n)
		made, err := s.Encrypt(context.Background(), admin(), &EncryptRequest{Namespace: "pay", Key: name, Plaintext: []byte(text)})
		l.want("encrypt "+name, err)
		if n%50 == 0 {
			l.sealedSince.Store(text, made.Ciphertext)
		}
		for text, ciphertext := range l.sealed {
			got, err := s.Decrypt(context.Background(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: ciphertext})
			l.want("decrypt "+text, err)
			if string(got.Plaintext) != text && err == nil {
				l.t.Errorf("decrypted %q, want %q", got.Plaintext, text)
			}
			break
		}
	}
}

// change makes keys and does everything to them.
func (l *rekeyLoad) change(s *Service, worker string) {
	for n := 0; l.ctx.Err() == nil && !l.t.Failed(); n++ {
		l.changeOne(s, fmt.Sprint(worker, "-", n))
	}
}

func (l *rekeyLoad) changeOne(s *Service, name string) {
	ctx, delay := context.Background(), time.Hour
	key, version := KeyRef{Namespace: "pay", Key: name}, VersionRef{Namespace: "pay", Key: name, Version: 1}
	labels := map[string]string{"a": "b"}
	made, err := s.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "pay", Key: name, Rotation: Rotation{Period: time.Hour}})
	l.want("create", err)
	l.want("rotate", second(s.RotateKey(ctx, admin(), key)))
	l.want("update", second(s.UpdateKey(ctx, admin(), UpdateKeyRequest{Namespace: "pay", Key: name, Labels: &labels})))
	l.want("disable", second(s.DisableVersion(ctx, admin(), version)))
	l.want("enable", second(s.EnableVersion(ctx, admin(), version)))
	l.want("destroy", second(s.DestroyVersion(ctx, admin(), DestroyRequest{Namespace: "pay", Key: name, Version: 1, Delay: &delay})))
	l.want("restore", second(s.RestoreVersion(ctx, admin(), version)))
	l.want("versions", listed(s.ListVersions(ctx, admin(), ListVersionsRequest{Namespace: "pay", Key: name})))
	l.want("list", listed(s.ListKeys(ctx, admin(), ListKeysRequest{Namespace: "pay"})))
	l.want("delete", second(s.DeleteKey(ctx, admin(), DestroyRequest{Namespace: "pay", Key: name, Delay: &delay})))
	l.want("restore key", second(s.RestoreKey(ctx, admin(), RestoreKeyRequest{Namespace: "pay", ID: made.ID})))
}

func listed[A any](_ []A, _ string, err error) error { return err }
