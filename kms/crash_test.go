package kms

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/store/badger"
)

// childEnv makes the test binary its own child, which works in that directory
// until it is killed.
const childEnv = "KEYWRIGHT_KMS_TEST_DIR"

func TestMain(m *testing.M) {
	if order := os.Getenv(killEnv); order != "" {
		killYourself(order)
	}
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := workForEver(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1) // a child that was not killed has failed
}

const (
	deviceFile    = "device"
	crashWorkers  = 4
	crashUses     = MinRotationUses
	crashUsesKey  = "uses"
	disableEvery  = 3
	crashLives    = 8
	crashLifetime = 500 * time.Millisecond
)

func workForEver(dir string) error {
	device, err := loadDevice(filepath.Join(dir, deviceFile))
	if err != nil {
		return err
	}
	store, err := badger.Open(badger.Options{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return err
	}
	log, err := audit.Open(filepath.Join(dir, "audit"), audit.Options{})
	if err != nil {
		return err
	}
	s, err := Open(context.Background(), Config{Store: store, Audit: log, HSM: device, JobInterval: 20 * time.Millisecond, CacheBytes: 10_000})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range crashWorkers {
		go func() { failed <- s.workOn(fmt.Sprint("key", w)) }()
	}
	go func() { failed <- s.useUp(crashUsesKey) }()
	go func() { failed <- s.rekeyAgainAndAgain("pay") }()
	return <-failed
}

// workOn encrypts, rotates and disables, and acknowledges each on standard
// output; what it is about to disable it says before.
func (s *Service) workOn(key string) error {
	ctx := context.Background()
	for n := 1; ; n++ {
		for range 5 {
			if err := s.encryptAloud(key); err != nil {
				return err
			}
		}
		call := admin()
		rotated, err := s.RotateKey(ctx, call, KeyRef{Namespace: "pay", Key: key})
		if err != nil {
			return err
		}
		fmt.Printf("rotated %s %d %s\n", key, rotated.Version, call.RequestID)
		if n%disableEvery != 0 {
			continue
		}
		fmt.Printf("disabling %s %d -\n", key, rotated.Version-1)
		call = admin()
		if _, err := s.DisableVersion(ctx, call, VersionRef{Namespace: "pay", Key: key, Version: rotated.Version - 1}); err != nil {
			return err
		}
		fmt.Printf("disabled %s %d %s\n", key, rotated.Version-1, call.RequestID)
	}
}

func (s *Service) useUp(key string) error {
	for {
		if err := s.encryptAloud(key); err != nil {
			return err
		}
	}
}

func (s *Service) rekeyAgainAndAgain(name string) error {
	ctx := context.Background()
	for {
		_, err := s.RekeyNamespace(ctx, admin(), NamespaceRef{Namespace: name})
		if err != nil && CodeOf(err) != FailedPrecondition { // one begun in the last life may be under way
			return err
		}
		for rekeying := true; rekeying; {
			time.Sleep(5 * time.Millisecond)
			n, err := s.GetNamespace(ctx, admin(), name)
			if err != nil {
				return err
			}
			if rekeying = n.rekeying(); !rekeying {
				fmt.Printf("rekeyed %s %d -\n", name, n.Generation)
			}
		}
	}
}

func (s *Service) encryptAloud(key string) error {
	sealed, err := s.Encrypt(context.Background(), admin(), &EncryptRequest{Namespace: "pay", Key: key, Plaintext: []byte("secret of " + key)})
	if err == nil {
		fmt.Printf("encrypted %s %d %s\n", key, sealed.Version, hex.EncodeToString(sealed.Ciphertext))
	}
	return err
}

// acknowledged is what the children said to have done.
type acknowledged struct {
	sealed    map[string][]promise // by key
	latest    map[string]uint32
	disabling map[string]bool // by key and version
	disabled  map[string]bool
	requests  []string
	uses      map[uint32]int // of crashUsesKey, by version
	rekeyed   uint32         // the latest generation
}

type promise struct {
	version    uint32
	ciphertext []byte
}

func newAcknowledged() *acknowledged {
	return &acknowledged{sealed: map[string][]promise{}, latest: map[string]uint32{},
		disabling: map[string]bool{}, disabled: map[string]bool{}, uses: map[uint32]int{}}
}

func (a *acknowledged) hear(line string) error {
	var what, key, rest string
	var version uint32
	if _, err := fmt.Sscanf(line, "%s %s %d %s", &what, &key, &version, &rest); err != nil {
		return err
	}
	place := fmt.Sprintf("%s %d", key, version)
	switch what {
	case "encrypted":
		ciphertext, err := hex.DecodeString(rest)
		if err != nil {
			return err
		}
		a.sealed[key] = append(a.sealed[key], promise{version, ciphertext})
		if key == crashUsesKey {
			a.uses[version]++
		}
	case "rotated":
		a.latest[key] = version
		a.requests = append(a.requests, rest)
	case "rekeyed":
		a.rekeyed = version
	case "disabling":
		a.disabling[place] = true
	case "disabled":
		a.disabled[place] = true
		a.requests = append(a.requests, rest)
	default:
		return fmt.Errorf("unknown line %q", line)
	}
	return nil
}

// live runs a child until it is killed at a random time. The last line may be
// cut short by the kill.
func (a *acknowledged) live(t *testing.T, dir string) {
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childEnv+"="+dir)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	var once sync.Once
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		once.Do(func() { // the life begins with the first line
			kill = time.AfterFunc(rand.N(crashLifetime), func() { _ = command.Process.Kill() })
		})
		if err := a.hear(strings.TrimSuffix(line, "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if kill != nil {
		defer kill.Stop()
	}
	if err := command.Wait(); err == nil || command.ProcessState.Exited() {
		t.Fatalf("the child was not killed: %v", err)
	}
}

// Over several lives that end by SIGKILL, nothing that was acknowledged is lost.
func TestKilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	for w := range crashWorkers {
		in.key("pay", fmt.Sprint("key", w), []string{"XAES_256_GCM", "AES_256_GCM"}[w%2])
	}
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: crashUsesKey, Rotation: Rotation{MaxUses: crashUses}}))
	if err := in.device.save(filepath.Join(in.dir, deviceFile)); err != nil {
		t.Fatal(err)
	}
	said := newAcknowledged()
	lives := 0
	for ; lives < crashLives || said.tooLittle() && lives < 5*crashLives; lives++ { // more on a slow machine
		in.close()
		said.live(t, in.dir)
		in.open()
		in.wantKept(said)
		if t.Failed() {
			return
		}
	}
	if in.describe("pay").rekeying() {
		in.endRekeying("pay")
	}
	in.wantOnly("pay", in.describe("pay").Generation)
	in.wantKept(said)
	if said.tooLittle() {
		t.Errorf("only %d ciphertexts, %d changes, %d versions disabled, %d used up, rekeyed up to generation %d: too few to prove anything",
			said.ciphertexts(), len(said.requests), len(said.disabled), len(said.uses), said.rekeyed)
	}
	t.Logf("%d ciphertexts and %d changes over %d lives", said.ciphertexts(), len(said.requests), lives)
}

func (a *acknowledged) ciphertexts() (n int) {
	for _, promises := range a.sealed {
		n += len(promises)
	}
	return n
}

// tooLittle tells that what was done proves nothing yet.
func (a *acknowledged) tooLittle() bool {
	return a.ciphertexts() < 500 || len(a.requests) < 50 || len(a.disabled) == 0 || len(a.uses) < 2 || a.rekeyed < 5
}

func (in *testInstallation) wantKept(said *acknowledged) {
	t := in.t
	for key, promises := range said.sealed {
		for _, p := range promises {
			place := fmt.Sprintf("%s %d", key, p.version)
			got, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: p.ciphertext})
			switch {
			case err == nil && string(got.Plaintext) == "secret of "+key && !said.disabled[place]:
			case CodeOf(err) == FailedPrecondition && said.disabling[place]:
			default:
				t.Fatalf("%s: Decrypt = %q, %v", place, got.Plaintext, err)
			}
		}
		if n := in.describe("pay"); n.Generation < said.rekeyed {
			t.Errorf("generation %d, but %d was acknowledged", n.Generation, said.rekeyed)
		}
		k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}))
		if k.LatestVersion < said.latest[key] || k.PrimaryVersion != k.LatestVersion {
			t.Errorf("key %s: latest %d, primary %d, but %d was acknowledged", key, k.LatestVersion, k.PrimaryVersion, said.latest[key])
		}
		for number := range k.LatestVersion {
			must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), VersionRef{Namespace: "pay", Key: key, Version: number + 1}))
		}
	}
	for version, n := range said.uses {
		if n > crashUses {
			t.Errorf("version %d of a key with %d uses was used %d times", version, crashUses, n)
		}
	}
	in.wantLogged(said.requests)
}

// wantLogged checks that the log has intent and outcome of each change.
func (in *testInstallation) wantLogged(requests []string) {
	phases := map[string]map[audit.Phase]int{}
	for _, e := range in.entries(audit.Filter{}) {
		if phases[e.RequestID] == nil {
			phases[e.RequestID] = map[audit.Phase]int{}
		}
		phases[e.RequestID][e.Phase]++
	}
	for _, id := range requests {
		if p := phases[id]; p[audit.PhaseIntent] != 1 || p[audit.PhaseOutcome] != 1 {
			in.t.Errorf("request %s was acknowledged; the log has %v", id, p)
		}
	}
}
