package policy

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Cedar entity types of resources and of what surrounds them.
const (
	typeKey               types.EntityType = "Key"
	typeNamespace         types.EntityType = "Namespace"
	typeSystem            types.EntityType = "System"
	typeGroup             types.EntityType = "Group"
	typeAction            types.EntityType = "Action"
	typeEncryptionContext types.EntityType = "EncryptionContext"
)

// systemUID is the installation, parent of every namespace.
func systemUID() types.EntityUID { return types.NewEntityUID(typeSystem, "keywright") }

func namespaceUID(namespace string) types.EntityUID {
	return types.NewEntityUID(typeNamespace, types.String(namespace))
}

func groupUID(group string) types.EntityUID {
	return types.NewEntityUID(typeGroup, types.String(group))
}

func actionUID(name string) types.EntityUID {
	return types.NewEntityUID(typeAction, types.String(name))
}

// kindsByType maps the Cedar types of resources to their kind.
func kindsByType() map[types.EntityType]kinds {
	return map[types.EntityType]kinds{typeKey: onKey, typeNamespace: onNamespace, typeSystem: onSystem}
}

// schemaEntities is the part of the schema that does not depend on the tables.
// Open-ended maps are entity tags, because records refuse undeclared names.
const schemaEntities = `// Who asks. name is the principal's id, so that it can be matched by pattern;
// trustDomain is the CA bundle or issuer that vouched for it, "" if none.
entity Group;
entity Workload in [Group] { name: String, trustDomain: String };
entity User in [Group] { name: String, trustDomain: String };
entity Token in [Group] { name: String, trustDomain: String };

// What is asked for: System::"keywright", Namespace::"payments",
// Key::"payments/card". Labels are tags.
entity System;
entity Namespace in [System] { name: String } tags String;
entity Key in [Namespace, System] {
  name: String,
  purpose: String,
  algorithm: String,
  protection: String,
  exportable: Bool,
} tags String;

// The pairs of the request's encryption context are its tags.
entity EncryptionContext tags String;

// source is absent when the request came over no network.
type Context = {
  time: datetime,
  source?: ipaddr,
  method: String,
  encryptionContext: EncryptionContext,
};
`

// Schema returns the schema that policies are checked against, in Cedar's
// human-readable format. Roles are actions that others belong to, as in
// `action in Action::"encrypter"`.
func Schema() string {
	var b strings.Builder
	b.WriteString(schemaEntities)
	b.WriteString("\n// Roles.\n")
	for _, row := range roleTable() {
		fmt.Fprintf(&b, "action %q%s;\n", row.role, memberOf(row.in))
	}
	b.WriteString("\n// Actions.\n")
	for _, row := range actionTable() {
		fmt.Fprintf(&b, "action %q%s appliesTo {\n  principal: [Workload, User, Token],\n  resource: [%s],\n  context: Context,\n};\n",
			row.action, memberOf(row.roles), strings.Join(row.on.names(), ", "))
	}
	return b.String()
}

func memberOf(roles []string) string {
	if len(roles) == 0 {
		return ""
	}
	return fmt.Sprintf(` in ["%s"]`, strings.Join(roles, `", "`))
}

// names returns the Cedar types of the kinds in k, narrowest first.
func (k kinds) names() []string {
	var names []string
	for _, kind := range []struct {
		kind kinds
		name types.EntityType
	}{{onKey, typeKey}, {onNamespace, typeNamespace}, {onSystem, typeSystem}} {
		if k&kind.kind != 0 {
			names = append(names, string(kind.name))
		}
	}
	return names
}

// actionMask is a set of actions, one bit each.
type actionMask uint64

// actionInfo is what deciding needs to know about one action.
type actionInfo struct {
	mask   actionMask
	on     kinds
	entity types.Entity // its parents are all roles that include it, flattened
}

// model is the schema in the forms that checking and deciding use. It is
// immutable.
type model struct {
	checker *validate.Validator
	actions map[Action]*actionInfo
	members map[types.EntityUID]actionMask // of each action and each role
}

// theModel builds the model once; every Set and every check shares it.
var theModel = sync.OnceValue(newModel)

func newModel() *model {
	m := &model{
		checker: newChecker(),
		actions: map[Action]*actionInfo{},
		members: map[types.EntityUID]actionMask{},
	}
	parents := rolesOf()
	for i, row := range actionTable() {
		info := &actionInfo{mask: 1 << i, on: row.on, entity: actionEntity(row, parents)}
		m.actions[row.action] = info
		m.members[info.entity.UID] |= info.mask
		for role := range info.entity.Parents.All() {
			m.members[role] |= info.mask
		}
	}
	return m
}

// newChecker panics if the schema built from the tables is not valid Cedar,
// which no input can bring about.
func newChecker() *validate.Validator {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema())); err != nil {
		panic("policy: schema does not parse: " + err.Error())
	}
	resolved, err := s.Resolve()
	if err != nil {
		panic("policy: schema does not resolve: " + err.Error())
	}
	return validate.New(resolved)
}

// rolesOf maps each role to the roles that include it directly.
func rolesOf() map[string][]string {
	parents := map[string][]string{}
	for _, row := range roleTable() {
		parents[row.role] = row.in
	}
	return parents
}

func actionEntity(row actionRow, parents map[string][]string) types.Entity {
	var roles []types.EntityUID
	for queue := row.roles; len(queue) > 0; queue = queue[1:] {
		roles = append(roles, actionUID(queue[0]))
		queue = append(queue, parents[queue[0]]...)
	}
	return types.Entity{UID: actionUID(string(row.action)), Parents: types.NewEntityUIDSet(roles...)}
}
