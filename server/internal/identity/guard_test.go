package identity

import (
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/paired"
)

// BenchmarkGuard is what the regression guard compares with its baseline: a token that
// was verified before.
func BenchmarkGuard(b *testing.B) {
	a, c := NewAuthenticator(&verifier{expires: time.Now().Add(time.Hour)}, time.Now, 100), &Connection{}
	authorization := fmt.Sprintf("Bearer kwt_%0220d", 1)
	paired.Report(b, func() {
		if _, err := a.Authenticate(c, authorization); err != nil {
			b.Error(err)
		}
	}, paired.Plain())
}
