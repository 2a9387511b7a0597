package policy

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocumentedPolicies checks that every policy in the documentation can be
// pasted, and that it names every action and role.
func TestDocumentedPolicies(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```cedar\n")[1:]
	if len(blocks) < 6 {
		t.Fatalf("%d policies documented, want the first line and five more", len(blocks))
	}
	for i, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		if err := Validate(Policy{Name: fmt.Sprint("block", i), Text: text}); err != nil {
			t.Error(err)
		}
	}
	for _, action := range Actions() {
		if !strings.Contains(string(page), string(action)) {
			t.Errorf("%s is not documented", action)
		}
	}
	for _, role := range roleNames() {
		if !strings.Contains(string(page), "| `"+role+"` |") {
			t.Errorf("role %s is not documented", role)
		}
	}
}
