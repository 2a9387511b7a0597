package policy

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// fuzzSeeds are texts whose verdict is known, so that the fuzzer starts on both
// sides of the line.
func fuzzSeeds() map[string]bool {
	condition := func(text string) string { return "permit (principal, action, resource) when { " + text + " };" }
	return map[string]bool{
		encrypterRow: true,
		"@id(\"a\") @b\nforbid (principal is User in Group::\"g\", action in [Action::\"Sign\", Action::\"admin\"], resource is Key in Namespace::\"n\") unless { true };": true,
		condition(overflow): true,
		condition(`resource.hasTag("env") && ["prod", "dev"].contains(resource.getTag("env"))`):                           true,
		condition(`context has source && context.source.isInRange(ip("10.0.0.0/8"))`):                                     true,
		condition(`context.time.offset(duration("1d")).toDate() > datetime("2026-01-01") || principal.name like "a\*b*"`): true,
		condition(`context.encryptionContext.hasTag(principal.name) && {a: 1, "b": [1, -2]}.a < 3 * 4 - 1`):               false,
		condition(`if resource is Key then resource.purpose == "MAC" else !false`):                                        true,
		condition(`context.time.toTime() <= duration("1h") && decimal("1.5").lessThan(decimal("2.0"))`):                   true,
		condition(`principal in [Group::"a", Group::"b"] && action in Action::"reader"`):                                  true,
		condition(`resource.getTag("env") == "x"`):                                                                        false,
		condition(`context.time < 1`):                         false,
		condition(`Key::"a/b".name == "b"`):                   false,
		"permit (principal, action, resource)":                false,
		"permit (principal == ?principal, action, resource);": false,
		"/* \" ; */" + encrypterRow + "/* when */ // \"":      true,
		"//\r" + permitAll:                                    false,
		"\"":                                                  false, "": false, "// \xff": false, "permit(\"\\u{110000}\"": false,
	}
}

func TestFuzzSeeds(t *testing.T) {
	for text, valid := range fuzzSeeds() {
		if err := Validate(Policy{Name: "p", Text: text}); (err == nil) != valid {
			t.Errorf("Validate(%s) = %v, want valid: %v", text, err, valid)
		}
	}
}

// FuzzValidate checks that no text makes Validate panic, that refusals have a
// place inside the text, and that what is accepted compiles and evaluates with
// no error but overflow.
func FuzzValidate(f *testing.F) {
	for text := range fuzzSeeds() {
		f.Add(text, "")
		f.Add(text, "payments")
	}
	f.Fuzz(func(t *testing.T, text, namespace string) {
		p := Policy{Name: "p", Namespace: namespace, Text: text}
		err := Validate(p)
		var invalid *InvalidPolicy
		if err != nil && !errors.As(err, &invalid) {
			t.Fatalf("error is %T", err)
		}
		if invalid != nil {
			checkRefusal(t, invalid, text)
			return
		}
		checkStatements(t, p)
		set, err := NewSet(1, []Policy{p}, nil)
		if err != nil {
			t.Fatalf("accepted, but does not compile: %v", err)
		}
		for _, action := range Actions() {
			checkEvaluation(t, set, action)
		}
	})
}

// checkStatements checks that the tokens agree with Cedar's parser on where
// statements begin and how many conditions they have: else a problem would be
// shown in the wrong place, and limits could be passed by.
func checkStatements(t *testing.T, p Policy) {
	t.Helper()
	doc, invalid := parse(p)
	if invalid != nil {
		t.Fatal(invalid)
	}
	count := 0
	for _, statement := range doc.statements {
		tokens := cedartext.Statement(doc.tokens, statement.Position().Offset)
		count += len(tokens)
		if len(tokens) == 0 || tokens[0].Offset != statement.Position().Offset || tokens[0].Line != statement.Position().Line ||
			tokens[0].Column != statement.Position().Column {
			t.Fatalf("statement at %+v is not where its tokens are: %+v", statement.Position(), tokens[:min(1, len(tokens))])
		}
		if got, want := len(doc.parts(statement))-1, len(tree(statement).Conditions); got != want {
			t.Errorf("%d conditions found, want %d", got, want)
		}
	}
	if count != len(doc.tokens) {
		t.Errorf("%d of %d tokens belong to statements", count, len(doc.tokens))
	}
}

func checkRefusal(t *testing.T, invalid *InvalidPolicy, text string) {
	t.Helper()
	if invalid.Problem == "" || invalid.Advice == "" || !utf8.ValidString(invalid.Error()) && utf8.ValidString(text) {
		t.Errorf("poor refusal: %+v", invalid)
	}
	lines := strings.Split(text, "\n")
	if invalid.Line > len(lines)+1 || invalid.Line < 0 || (invalid.Line > 0) != (invalid.Column > 0) {
		t.Errorf("place outside the text: %+v", invalid)
	}
}

// checkEvaluation evaluates the set for requests with as much and as little as
// a request may have.
func checkEvaluation(t *testing.T, set *Set, action Action) {
	t.Helper()
	bare := &Request{Caller: &Caller{Type: User, ID: "u"}, Action: action, Time: noon}
	full := ask(action)
	full.EncryptionContext = map[string]string{"env": "prod", "app": "x"}
	full.Caller.Groups, full.Caller.Source = []string{"g"}, netip.MustParseAddr("10.0.0.1")
	info := theModel().actions[action]
	for _, r := range []*Request{bare, full} {
		for _, resource := range []*Resource{card(), {Namespace: "payments", Key: "bare"}, {Namespace: "payments"}, {}} {
			if info.on&resource.kind() == 0 {
				continue
			}
			r.Resource = resource
			checkExplanation(t, set, r)
			checkWho(t, set, r)
			all := candidates{reads: reads{context: true, attributes: true}}
			for _, s := range set.statements {
				all.statements = append(all.statements, s)
			}
			q := set.query(r, r.Caller, info)
			_, diagnostic := cedar.Authorize(all, q.entities(all.reads), q.cedarRequest(all.reads))
			for _, failure := range diagnostic.Errors {
				if !strings.Contains(failure.Message, "overflow") {
					t.Errorf("accepted, but fails on %s of %+v: %s", action, resource, failure.Message)
				}
			}
		}
	}
}

// checkExplanation checks that an explanation agrees with the decision, has all
// its parts, and that who may put a policy counts as governing.
func checkExplanation(t *testing.T, set *Set, r *Request) {
	t.Helper()
	decision, e := set.Decide(r), set.Explain(r)
	if e.Verdict != decision.Verdict || e.Reason != decision.Reason {
		t.Errorf("%+v is explained as %+v", decision, e)
	}
	for _, c := range e.Statements {
		decided := c.Result == Permitted || c.Result == Forbade
		if c.Line < 1 || decided != (c.FailedPart == "") || !decided && (c.FailedText == "" || c.FailedLine < c.Line) {
			t.Errorf("poor explanation: %+v", c)
		}
	}
	if decision.Verdict == Allow && r.Action == PutPolicy && len(r.Caller.Groups) == 0 && r.Caller.Type != Token && !set.Governed(r.Resource) {
		t.Error("somebody may put policies, but nobody governs")
	}
}

// checkWho checks that whoever is allowed something is among those who may do it,
// and that what is forbidden to everyone without condition is allowed to nobody.
func checkWho(t *testing.T, set *Set, r *Request) {
	t.Helper()
	grants, exceptions, err := set.WhoMay(r.Action, r.Resource)
	if err != nil {
		t.Fatal(err)
	}
	allowed := set.Decide(r).Verdict == Allow
	if allowed && len(grants) == 0 {
		t.Errorf("%s may %s, but nobody may", r.Caller.Principal(), r.Action)
	}
	for _, e := range exceptions {
		if allowed && e.Detail == "everyone" {
			t.Errorf("%s may %s, which is forbidden to everyone", r.Caller.Principal(), r.Action)
		}
	}
}

// grammar produces random conditions, many of them ill-typed, to look for what
// the type checker lets through although it cannot be evaluated.
type grammar struct{ *rand.Rand }

func (g grammar) pick(texts ...string) string { return texts[g.IntN(len(texts))] }

func (g grammar) expression(depth int) string {
	leaves := []string{
		"principal", "resource", "action", "context", "context.time", "context.method", "context.source",
		"context.encryptionContext", "resource.name", "resource.purpose", "principal.name", "1", "-7", `"env"`, `"prod"`,
		"true", "false", `ip("10.0.0.0/8")`, `decimal("1.5")`, `duration("1h")`, `datetime("2026-01-01")`,
		`Group::"g"`, `Key::"payments/card"`, `Namespace::"payments"`, `Action::"reader"`, `Action::"Encrypt"`,
	}
	if depth == 0 {
		return g.pick(leaves...)
	}
	x, y := g.expression(g.IntN(depth)), g.expression(g.IntN(depth))
	shape := g.pick(
		"X && Y", "X || Y", "(if X then Y else X)", "!(X)", "X == Y", "X != Y", "X < Y", "X >= Y", "X + Y", "X * Y",
		"X in Y", "X in [X, Y]", "[X, Y].contains(Y)", "[X].containsAny([Y])", "[X, Y].isEmpty()", `X like "p*"`,
		"X is Key", "X is User in Y", "X has source", "X has purpose", "X.hasTag(Y)", "X.getTag(Y)",
		`X.hasTag("env") && X.getTag("env") == Y`, "X has source && X.source.isInRange(Y)", "X is Key && X.purpose == Y",
		"X.offset(Y)", "X.durationSince(Y)", "X.toTime()", "X.toDate()", "X.toDays()", "X.isLoopback()", "X.isIpv4()",
		"X.lessThan(Y)", "{a: X}.a", "{a: X} == {a: Y}", "{a: X} has a", "ip(X)", "datetime(X)", "duration(X)",
	)
	return "(" + strings.NewReplacer("X", x, "Y", y).Replace(shape) + ")"
}

// FuzzGrammar checks of generated conditions what FuzzValidate checks of texts.
func FuzzGrammar(f *testing.F) {
	for seed := range uint64(400) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := grammar{rand.New(rand.NewPCG(seed, 1))}
		text := g.pick("permit", "forbid") + "(principal, action, resource" + g.pick("", " is Key") + ") when { " + g.expression(4) + " };"
		if Validate(Policy{Name: "p", Text: text}) != nil {
			return
		}
		set, err := NewSet(1, []Policy{{Name: "p", Text: text}}, nil)
		if err != nil {
			t.Fatalf("accepted, but does not compile: %v", err)
		}
		for _, action := range []Action{Encrypt, CreateKey, ListKeys, PutPolicy, GetStatus} {
			checkEvaluation(t, set, action)
		}
		if t.Failed() {
			t.Log(text)
		}
	})
}
