package manage

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// changeFlags propose changes of policies, for a dry run.
type changeFlags struct{ changes, deletions []string }

func (f *changeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.changes, "change", nil, "as if the policy [NAMESPACE/]NAME held the text of a file: NAME=FILE; repeatable")
	flags.StringArrayVar(&f.deletions, "delete", nil, "as if the policy [NAMESPACE/]NAME were deleted; repeatable")
}

func (f *changeFlags) proto(a app) ([]*keywrightv1.PolicyChange, error) {
	var changes []*keywrightv1.PolicyChange
	for _, text := range f.changes {
		policy, path, ok := strings.Cut(text, "=")
		if !ok || path == "" {
			return nil, command.Usagef("--change must be [NAMESPACE/]NAME=FILE, not %q", text)
		}
		change, err := a.policyChange(policy)
		if err != nil {
			return nil, err
		}
		data, err := ui.ReadFile(path, maxPolicy)
		if err != nil {
			return nil, err
		}
		if change.Text = string(data); change.Text == "" {
			return nil, command.Usagef("%s is empty; --delete tries a deletion", path)
		}
		changes = append(changes, change)
	}
	for _, policy := range f.deletions {
		change, err := a.policyChange(policy)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	return changes, nil
}

func (a app) policyChange(policy string) (*keywrightv1.PolicyChange, error) {
	namespace, name, err := a.policyName(policy)
	return &keywrightv1.PolicyChange{Namespace: namespace, Name: name}, err
}

// resourceName takes NAMESPACE/KEY apart, or NAMESPACE; with --namespace, a word
// alone is a key. Nothing is the installation.
func (a app) resourceName(text string) (namespace, key string, err error) {
	namespace, key, slash := strings.Cut(text, "/")
	switch {
	case !slash && text != "" && a.Namespace != "":
		return a.Namespace, text, nil
	case slash && (namespace == "" || key == "" || strings.Contains(key, "/")):
		return "", "", command.Usagef("%q is no key's name; write NAMESPACE/KEY", text)
	case text == "":
		return a.Namespace, "", nil
	}
	return namespace, key, nil
}

// policyPlace names a statement for people, such as `payments/app, line 3`.
func policyPlace(p *keywrightv1.ConsideredPolicy) string {
	return ui.Cell(strings.TrimPrefix(p.GetNamespace()+"/"+p.GetName(), "/")) + ", line " + ui.Number(p.GetLine())
}
