package checkpoint

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// keys is a succession of three keys and a broken fourth.
type keys struct {
	key    [4]Key
	signer [4]memory
	whole  Succession
}

func newKeys(t testing.TB) keys {
	t.Helper()
	var k keys
	k.key[0], k.signer[0] = newEd25519(t, origin, 'a')
	k.key[1], k.signer[1] = newECDSA(t, origin)
	k.key[2], k.signer[2] = newEd25519(t, origin, 'c')
	k.key[3], k.signer[3] = newEd25519(t, origin, 'd')
	s, err := BeginSuccession(t.Context(), k.key[0], k.signer[0])
	for i, from := range []uint64{100, 200} {
		if err == nil {
			s, err = s.Follow(t.Context(), from, k.signer[i], k.key[i+1], k.signer[i+1])
		}
	}
	if err == nil {
		s, err = s.Break(t.Context(), 300, "the token was lost in a fire", k.key[3], k.signer[3])
	}
	if err != nil {
		t.Fatal(err)
	}
	k.whole = s
	return k
}

func TestSuccession(t *testing.T) {
	k := newKeys(t)
	s, err := ParseSuccession(k.whole.Text())
	if err != nil {
		t.Fatal(err)
	}
	if s.Origin() != origin || !s.First().Equal(k.key[0]) || !s.Current().Equal(k.key[3]) {
		t.Errorf("origin %s, first %s, current %s", s.Origin(), s.First(), s.Current())
	}
	for i, want := range [][]Span{
		{{k.key[0], 0, 100}, {k.key[1], 100, 200}, {k.key[2], 200, 300}},
		{{k.key[1], 100, 200}, {k.key[2], 200, 300}},
		{{k.key[2], 200, 300}},
		{{k.key[3], 300, math.MaxInt64}},
	} {
		spans, breaks, err := s.Trusted(k.key[i])
		if err != nil || len(spans) != len(want) {
			t.Fatalf("from key %d: %v (%v)", i, spans, err)
		}
		for j := range want {
			if !spans[j].Key.Equal(want[j].Key) || spans[j].From != want[j].From || spans[j].To != want[j].To {
				t.Errorf("from key %d: span %d is %+v, want %+v", i, j, spans[j], want[j])
			}
		}
		if broken := i < 3; broken != (len(breaks) == 1) || broken && (breaks[0].From != 300 || breaks[0].Reason != "the token was lost in a fire") {
			t.Errorf("from key %d: breaks %+v", i, breaks)
		}
	}
	stranger, _ := newEd25519(t, origin, 'x')
	if _, _, err := s.Trusted(stranger); !errors.Is(err, ErrSignature) {
		t.Errorf("trusted a stranger: %v", err)
	}
}

func TestOpenTrusted(t *testing.T) {
	k := newKeys(t)
	spans, _, err := k.whole.Trusted(k.key[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		size uint64
		key  int
		good bool
	}{{0, 0, true}, {100, 0, true}, {101, 0, false}, {99, 1, false}, {100, 1, true}, {200, 1, true}, {300, 2, true}, {301, 2, false}, {300, 3, false}, {400, 3, false}} {
		c := sample()
		c.Size = test.size
		_, err := OpenTrusted(mustSign(t, c, k.key[test.key], k.signer[test.key]), spans)
		if test.good != (err == nil) || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("size %d by key %d: %v", test.size, test.key, err)
		}
	}
}

func TestSuccessionRefuses(t *testing.T) {
	k := newKeys(t)
	text := string(k.whole.Text())
	parts := strings.SplitAfter(text, "\n\n")
	member := func(i int) string { return parts[2*i] + parts[2*i+1] }
	stranger, strangerSigner := newEd25519(t, origin, 'x')
	alien, alienSigner := newEd25519(t, "keywright/other", 'y')
	witness, _ := cosigner(t, origin)
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"nothing":              {"", ErrForm},
		"no newline":           {strings.TrimSuffix(text, "\n"), ErrForm},
		"half":                 {parts[0], ErrForm},
		"first missing":        {member(1) + member(2) + strings.TrimSuffix(member(3), "\n"), ErrForm},
		"second missing":       {member(0) + strings.TrimSuffix(member(2), "\n"), ErrSignature},
		"reordered":            {member(0) + member(2) + strings.TrimSuffix(member(1), "\n"), ErrSignature},
		"repeated":             {member(0) + strings.TrimSuffix(member(0), "\n"), ErrForm},
		"signed by one only":   {member(0) + dropSignature(member(1), 0), ErrSignature},
		"signed by other only": {member(0) + dropSignature(member(1), 1), ErrSignature},
		"another size":         {strings.Replace(text, "from 100\n", "from 101\n", 1), ErrSignature},
		"another reason":       {strings.Replace(text, "fire", "move", 1), ErrSignature},
		"break without reason": {strings.Replace(text, "break the token was lost in a fire", "break ", 1), ErrForm},
		"more lines":           {strings.Replace(text, "from 100\n", "from 100\nmore\n", 1), ErrForm},
		"spaces":               {strings.Replace(text, "from 100\n", "from  100\n", 1), ErrForm},
	} {
		if _, err := ParseSuccession([]byte(test.text)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	ctx := t.Context()
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"earlier size":       {second(k.whole.Follow(ctx, 299, k.signer[3], stranger, strangerSigner)), ErrForm},
		"another origin":     {second(k.whole.Follow(ctx, 400, k.signer[3], alien, alienSigner)), ErrOrigin},
		"old key again":      {second(k.whole.Follow(ctx, 400, k.signer[3], k.key[0], k.signer[0])), ErrForm},
		"wrong old signer":   {second(k.whole.Follow(ctx, 400, k.signer[0], stranger, strangerSigner)), ErrSignature},
		"wrong new signer":   {second(k.whole.Follow(ctx, 400, k.signer[3], stranger, alienSigner)), ErrSignature},
		"no reason":          {second(k.whole.Break(ctx, 400, "", stranger, strangerSigner)), ErrForm},
		"reason of lines":    {second(k.whole.Break(ctx, 400, "a\nb", stranger, strangerSigner)), ErrForm},
		"long reason":        {second(k.whole.Break(ctx, 400, strings.Repeat("a", 201), stranger, strangerSigner)), ErrForm},
		"key of a witness":   {second(BeginSuccession(ctx, witness, strangerSigner)), ErrForm},
		"first wrong signer": {second(BeginSuccession(ctx, stranger, alienSigner)), ErrSignature},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", name, test.err, test.want)
		}
	}
}

// dropSignature removes one signature of a member.
func dropSignature(member string, which int) string {
	text, signatures, _ := strings.Cut(member, "\n\n")
	lines := strings.SplitAfter(strings.TrimSpace(signatures)+"\n", "\n")
	return text + "\n\n" + strings.Join(append(lines[:which:which], lines[which+1:]...), "")
}
