package policy

import (
	"fmt"
	"slices"
)

// Action is an operation that policies permit or forbid.
type Action string

// Actions that use a key. ReEncrypt is no action of its own: it needs Decrypt
// on the source and Encrypt on the destination.
const (
	Encrypt             Action = "Encrypt"
	Decrypt             Action = "Decrypt"
	GenerateDataKey     Action = "GenerateDataKey"
	GenerateDataKeyPair Action = "GenerateDataKeyPair"
	Sign                Action = "Sign"
	Verify              Action = "Verify"
	GenerateMac         Action = "GenerateMac"
	VerifyMac           Action = "VerifyMac"
	AsymmetricDecrypt   Action = "AsymmetricDecrypt"
	DeriveSharedSecret  Action = "DeriveSharedSecret"
	GetPublicKey        Action = "GetPublicKey"
	GenerateRandom      Action = "GenerateRandom" // on a namespace
)

// Actions that manage keys and their versions. ListKeys is asked of a
// namespace, CreateKey and ImportKey of the key to be created or of its namespace;
// ImportKey of a key that there is means a new version of it.
const (
	CreateKey         Action = "CreateKey"
	ImportKey         Action = "ImportKey" // and get a wrapping key for it
	ExportKey         Action = "ExportKey"
	GetKey            Action = "GetKey"
	ListKeys          Action = "ListKeys"
	UpdateKey         Action = "UpdateKey"
	RotateKey         Action = "RotateKey"
	SetPrimaryVersion Action = "SetPrimaryVersion"
	EnableVersion     Action = "EnableVersion"
	DisableVersion    Action = "DisableVersion"
	DestroyVersion    Action = "DestroyVersion"
	RestoreVersion    Action = "RestoreVersion"
	DeleteKey         Action = "DeleteKey"
	RestoreKey        Action = "RestoreKey"
)

// Actions that manage namespaces, policies, groups and tokens, and that look at
// the installation. ListNamespaces, CreateToken, RevokeToken, GetStatus,
// GetCheckpoint, RotateAuditKey, those on root keys and those on groups are asked of
// the installation; those on policies and ReadAudit of a
// namespace or of the installation; CreateNamespace of the namespace to be created
// or of the installation. ExplainPolicy covers all that tells of decisions that
// others get: explanations, dry runs, and who may do something.
const (
	CreateNamespace  Action = "CreateNamespace"
	GetNamespace     Action = "GetNamespace"
	ListNamespaces   Action = "ListNamespaces"
	UpdateNamespace  Action = "UpdateNamespace"
	DeleteNamespace  Action = "DeleteNamespace"
	RestoreNamespace Action = "RestoreNamespace"
	RekeyNamespace   Action = "RekeyNamespace"
	ConfirmErasure   Action = "ConfirmErasure" // of a namespace's old generations
	PutPolicy        Action = "PutPolicy"
	GetPolicy        Action = "GetPolicy"
	ListPolicies     Action = "ListPolicies"
	DeletePolicy     Action = "DeletePolicy"
	ExplainPolicy    Action = "ExplainPolicy"
	PutGroup         Action = "PutGroup"
	GetGroup         Action = "GetGroup"
	ListGroups       Action = "ListGroups"
	DeleteGroup      Action = "DeleteGroup"
	CreateToken      Action = "CreateToken"
	RevokeToken      Action = "RevokeToken"
	ReadAudit        Action = "ReadAudit"
	GetCheckpoint    Action = "GetCheckpoint"
	RotateAuditKey   Action = "RotateAuditKey"
	ListRoots        Action = "ListRoots"
	RotateRoot       Action = "RotateRoot"
	DestroyRoot      Action = "DestroyRoot"
	RestoreRoot      Action = "RestoreRoot"
	MigrateNamespace Action = "MigrateNamespace" // to another token
	GetStatus        Action = "GetStatus"
)

// The kinds of resource an action may be asked of; a bit set.
type kinds uint8

const (
	onKey kinds = 1 << iota
	onNamespace
	onSystem
)

// actionRow says of an action what it applies to and which roles include it.
type actionRow struct {
	action Action
	on     kinds
	roles  []string
}

// roleRow says which roles include a role whole.
type roleRow struct {
	role string
	in   []string
}

// roleTable is the built-in roles. A role is a group of actions: neither
// operator nor admin includes one that uses a key, and only exporter the one that
// takes its material out.
func roleTable() []roleRow {
	return []roleRow{
		{role: "encrypter"},
		{role: "decrypter"},
		{role: "signer"},
		{role: "verifier", in: []string{"signer"}},
		{role: "exporter"},
		{role: "reader", in: []string{"operator", "auditor"}},
		{role: "operator", in: []string{"admin"}},
		{role: "auditor", in: []string{"admin"}},
		{role: "admin"},
	}
}

// actionTable is the one place that says what each action applies to and which
// roles include it; the schema and the decisions are both made from it.
func actionTable() []actionRow {
	in := func(roles ...string) []string { return roles }
	return []actionRow{
		{Encrypt, onKey, in("encrypter")},
		{Decrypt, onKey, in("decrypter")},
		{GenerateDataKey, onKey, in("encrypter")},
		{GenerateDataKeyPair, onKey, in("encrypter")},
		{Sign, onKey, in("signer")},
		{Verify, onKey, in("verifier")},
		{GenerateMac, onKey, in("signer")},
		{VerifyMac, onKey, in("verifier")},
		{AsymmetricDecrypt, onKey, in("decrypter")},
		{DeriveSharedSecret, onKey, in("decrypter")},
		{GetPublicKey, onKey, in("encrypter", "verifier", "reader")},
		{GenerateRandom, onNamespace, in("encrypter")},

		{CreateKey, onKey | onNamespace, in("operator")},
		{ImportKey, onKey | onNamespace, in("operator")},
		{ExportKey, onKey, in("exporter")},
		{GetKey, onKey, in("reader")},
		{ListKeys, onNamespace, in("reader")},
		{UpdateKey, onKey, in("operator")},
		{RotateKey, onKey, in("operator")},
		{SetPrimaryVersion, onKey, in("operator")},
		{EnableVersion, onKey, in("operator")},
		{DisableVersion, onKey, in("operator")},
		{DestroyVersion, onKey, in("operator")},
		{RestoreVersion, onKey, in("operator")},
		{DeleteKey, onKey, in("operator")},
		{RestoreKey, onKey, in("operator")},

		{CreateNamespace, onNamespace | onSystem, in("admin")},
		{GetNamespace, onNamespace, in("reader")},
		{ListNamespaces, onSystem, in("reader")},
		{UpdateNamespace, onNamespace, in("admin")},
		{DeleteNamespace, onNamespace, in("admin")},
		{RestoreNamespace, onNamespace, in("admin")},
		{RekeyNamespace, onNamespace, in("admin")},
		{ConfirmErasure, onNamespace, in("admin")},
		{PutPolicy, onNamespace | onSystem, in("admin")},
		{GetPolicy, onNamespace | onSystem, in("auditor")},
		{ListPolicies, onNamespace | onSystem, in("auditor")},
		{DeletePolicy, onNamespace | onSystem, in("admin")},
		{ExplainPolicy, onNamespace | onSystem, in("auditor")},
		{PutGroup, onSystem, in("admin")},
		{GetGroup, onSystem, in("auditor")},
		{ListGroups, onSystem, in("auditor")},
		{DeleteGroup, onSystem, in("admin")},
		{CreateToken, onSystem, in("admin")},
		{RevokeToken, onSystem, in("admin")},
		{ReadAudit, onNamespace | onSystem, in("auditor")},
		{GetCheckpoint, onSystem, in("reader")},
		{RotateAuditKey, onSystem, in("admin")},
		{ListRoots, onSystem, in("reader")},
		{RotateRoot, onSystem, in("admin")},
		{DestroyRoot, onSystem, in("admin")},
		{RestoreRoot, onSystem, in("admin")},
		{MigrateNamespace, onNamespace, in("admin")},
		{GetStatus, onSystem, in("reader")},
	}
}

// Actions returns every action, those that use keys first.
func Actions() []Action {
	table := actionTable()
	all := make([]Action, len(table))
	for i, row := range table {
		all[i] = row.action
	}
	return all
}

// ParseAction returns the action of that name, which is case-sensitive.
func ParseAction(name string) (Action, error) {
	if a := Action(name); slices.Contains(Actions(), a) {
		return a, nil
	}
	return "", fmt.Errorf("%w %q; names are case-sensitive, such as %s", ErrUnknownAction, name, GenerateDataKey)
}
