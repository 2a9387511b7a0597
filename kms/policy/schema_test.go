package policy

import (
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
)

// TestSchemaIsCedar reads the schema back as an outsider would, and compares it
// with what decisions are made from.
func TestSchemaIsCedar(t *testing.T) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema())); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(resolved.Actions), len(Actions())+len(roleNames()); got != want {
		t.Errorf("%d actions and roles in the schema, want %d", got, want)
	}
	for _, action := range Actions() {
		declared, ok := resolved.Actions[actionUID(string(action))]
		if !ok || len(declared.AppliesTo.Principals) != 3 {
			t.Fatalf("%s is not declared for all principals", action)
		}
		var on kinds
		for _, name := range declared.AppliesTo.Resources {
			on |= kindsByType()[name]
		}
		info := theModel().actions[action]
		if on != info.on {
			t.Errorf("%s applies to %v in the schema, to %v in decisions", action, on.names(), info.on.names())
		}
		for role := range declared.Entity.Parents.All() {
			if !info.entity.Parents.Contains(role) {
				t.Errorf("%s is in %s in the schema, not in decisions", action, role)
			}
		}
	}
	if strings.Contains(Schema(), "Long") {
		t.Error("orderedType assumes that nothing declared is a Long")
	}
}
