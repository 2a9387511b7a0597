package policy

import (
	"testing"

	"github.com/keywright/keywright/bench/paired"
)

// BenchmarkGuard is what the regression guard compares with its baseline.
func BenchmarkGuard(b *testing.B) {
	set, r := manyPolicies(b, 100), ask(Encrypt)
	r.Resource.Revision = 7
	paired.Report(b, func() { set.Decide(r) }, paired.Plain())
}
