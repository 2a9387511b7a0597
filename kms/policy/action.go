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
// namespace, CreateKey of the key to be created or of its namespace.
const (
	CreateKey         Action = "CreateKey"
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

// Actions that manage namespaces, policies and tokens, and that look at the
// installation. ListNamespaces, CreateToken, RevokeToken and GetStatus are
// asked of the installation; those on policies and ReadAudit of a namespace or
// of the installation; CreateNamespace of the namespace to be created or of
// the installation.
const (
	CreateNamespace Action = "CreateNamespace"
	GetNamespace    Action = "GetNamespace"
	ListNamespaces  Action = "ListNamespaces"
	UpdateNamespace Action = "UpdateNamespace"
	DeleteNamespace Action = "DeleteNamespace"
	PutPolicy       Action = "PutPolicy"
	GetPolicy       Action = "GetPolicy"
	ListPolicies    Action = "ListPolicies"
	DeletePolicy    Action = "DeletePolicy"
	CreateToken     Action = "CreateToken"
	RevokeToken     Action = "RevokeToken"
	ReadAudit       Action = "ReadAudit"
	GetStatus       Action = "GetStatus"
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
// operator nor admin includes one that uses a key.
func roleTable() []roleRow {
	return []roleRow{
		{role: "encrypter"},
		{role: "decrypter"},
		{role: "signer"},
		{role: "verifier", in: []string{"signer"}},
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
		{PutPolicy, onNamespace | onSystem, in("admin")},
		{GetPolicy, onNamespace | onSystem, in("auditor")},
		{ListPolicies, onNamespace | onSystem, in("auditor")},
		{DeletePolicy, onNamespace | onSystem, in("admin")},
		{CreateToken, onSystem, in("admin")},
		{RevokeToken, onSystem, in("admin")},
		{ReadAudit, onNamespace | onSystem, in("auditor")},
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
