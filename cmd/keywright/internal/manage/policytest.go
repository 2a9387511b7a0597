package manage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const testHelp = `Decide supposed requests and compare with what is expected of them. FILE is a YAML
or JSON list of cases, of which principal, action and expect are needed:

  - name: billing reads no salaries
    principal: Token::"billing"
    action: Decrypt
    resource: hr/salaries           # NAMESPACE/KEY, NAMESPACE, or left out: the installation
    groups: [batch]                 # that its credentials claim
    context: {tenant: blue}         # the encryption context
    source: 10.0.0.7
    method: token                   # mtls, token or unix
    time: 2026-01-31T12:00:00Z      # now if left out
    expect: deny                    # or allow

With --change and --delete, the policies are tested as they would be. The exit
code is 1 if a case is decided otherwise than expected; each gets a line.`

const (
	maxTestFile   = 4 << 20 // bytes
	maxTestedOnce = 1000    // requests that a server takes at once
)

// policyCase is a line of the table of `policy test`.
type policyCase struct {
	Name      string            `yaml:"name"`
	Principal string            `yaml:"principal"`
	Action    string            `yaml:"action"`
	Resource  string            `yaml:"resource"`
	Groups    []string          `yaml:"groups"`
	Context   map[string]string `yaml:"context"`
	Source    string            `yaml:"source"`
	Method    string            `yaml:"method"`
	Time      time.Time         `yaml:"time"`
	Expect    string            `yaml:"expect"`
}

// testedCase is what becomes of a case, in JSON.
type testedCase struct {
	Case     int    `json:"case"` // from 1
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
}

func (t testedCase) asExpected() bool { return t.Expected == t.Decision }

func (a app) policyTest() *cobra.Command {
	var changes changeFlags
	cmd := &cobra.Command{Use: "test FILE", Short: "Compare decisions with a table of what is expected", Long: testHelp, Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			cases, err := a.readCases(ctx, args[0])
			if err != nil {
				return err
			}
			proposed, err := changes.proto(a)
			if err != nil {
				return err
			}
			tested, err := testCases(ctx, c, cases, proposed)
			if err != nil {
				return err
			}
			return a.printTested(tested)
		})}
	changes.add(cmd)
	return cmd
}

func (a app) readCases(ctx context.Context, path string) ([]policyCase, error) {
	file, err := ui.Open(ctx, path, a.In, false)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	data, err := ui.ReadAll(file, maxTestFile)
	if err != nil {
		return nil, err
	}
	cases, err := parseCases(data)
	if err != nil {
		return nil, command.Usagef("%s: %s", path, err)
	}
	return cases, nil
}

// parseCases reads a table of cases: one YAML document, known fields only.
func parseCases(data []byte) ([]policyCase, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var cases []policyCase
	if err := decoder.Decode(&cases); err != nil && !errors.Is(err, io.EOF) {
		return nil, notCases(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document; write one list of cases")
	}
	if len(cases) == 0 {
		return nil, errors.New("there is no case")
	}
	for i, c := range cases {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("case %d: %w", i+1, err)
		}
	}
	return cases, nil
}

// notCases says what keeps a file from being a table, without the words of Go.
func notCases(err error) error {
	if mistyped, ok := errors.AsType[*yaml.TypeError](err); ok {
		problem := strings.NewReplacer(" in type manage.policyCase", "", "[]manage.policyCase", "a list of cases", "manage.policyCase", "a case").Replace(mistyped.Errors[0])
		return fmt.Errorf("%s; `keywright policy test --help` shows the form", problem)
	}
	return err
}

func (c policyCase) check() error {
	namespace, key, slash := strings.Cut(c.Resource, "/")
	switch {
	case c.Principal == "" || c.Action == "":
		return errors.New("give principal and action")
	case c.Expect != "allow" && c.Expect != "deny":
		return fmt.Errorf("expect is %q; write allow or deny", c.Expect)
	case slash && (namespace == "" || key == "" || strings.Contains(key, "/")):
		return fmt.Errorf("resource is %q; write NAMESPACE/KEY or NAMESPACE", c.Resource)
	}
	return nil
}

func (c policyCase) proto() *keywrightv1.SupposedRequest {
	namespace, key, _ := strings.Cut(c.Resource, "/")
	request := &keywrightv1.SupposedRequest{Principal: c.Principal, Groups: c.Groups, Action: c.Action, Namespace: namespace, Key: key,
		EncryptionContext: c.Context, Source: c.Source, Method: c.Method}
	if !c.Time.IsZero() {
		request.Time = timestamppb.New(c.Time)
	}
	return request
}

func testCases(ctx context.Context, c *client.Client, cases []policyCase, changes []*keywrightv1.PolicyChange) ([]testedCase, error) {
	var tested []testedCase
	for part := range slices.Chunk(cases, maxTestedOnce) {
		q := &keywrightv1.TestPoliciesRequest{Changes: changes}
		for _, each := range part {
			q.Requests = append(q.Requests, each.proto())
		}
		answer, err := c.TestPolicies(ctx, q)
		if err != nil {
			return nil, err
		}
		for i, e := range answer.GetExplanations() {
			tested = append(tested, testedCase{len(tested) + 1, part[i].Name, part[i].Expect, e.GetDecision(), e.GetReason()})
		}
	}
	return tested, nil
}

// errCases is the failure of cases that were printed already.
type errCases struct{ failed, all int }

func (e errCases) Error() string {
	return fmt.Sprintf("%d of %d cases are decided otherwise than expected", e.failed, e.all)
}

func (a app) printTested(tested []testedCase) error {
	failed := slices.DeleteFunc(slices.Clone(tested), testedCase.asExpected)
	if a.JSON() {
		if err := ui.ValueJSON(a.Out, tested); err != nil {
			return err
		}
	} else if err := a.printFailed(failed, len(tested)); err != nil {
		return err
	}
	if len(failed) > 0 {
		return errCases{len(failed), len(tested)}
	}
	return nil
}

func (a app) printFailed(failed []testedCase, all int) error {
	for _, c := range failed {
		name := ""
		if c.Name != "" {
			name = " (" + ui.Cell(c.Name) + ")"
		}
		if _, err := fmt.Fprintf(a.Out, "case %d%s: %s, expected %s: %s\n", c.Case, name, ui.Cell(c.Decision), c.Expected, ui.Cell(c.Reason)); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(a.Out, "%d cases are decided as expected\n", all)
	return err
}
