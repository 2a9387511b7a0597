package translate

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// fill gives every field of a message a value that is not its default.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("item"))
		default:
			m.Set(f, value(m, f))
		}
	}
}

func value(m protoreflect.Message, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("0123456789abcdef") // reads as an id, too
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(f.Name()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(7)
	}
	switch nested := m.NewField(f); nested.Message().Interface().(type) {
	case *durationpb.Duration:
		return protoreflect.ValueOfMessage(durationpb.New(time.Hour).ProtoReflect())
	case *timestamppb.Timestamp:
		return protoreflect.ValueOfMessage(timestamppb.New(time.Unix(1e9, 0)).ProtoReflect())
	default:
		fill(nested.Message())
		return nested
	}
}

// zeros returns the paths of fields that a value leaves zero.
func zeros(v reflect.Value, path string) (left []string) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if _, ok := v.Interface().(time.Time); v.Kind() != reflect.Struct || ok {
		if v.IsZero() {
			return []string{path}
		}
		return nil
	}
	for i := range v.NumField() {
		left = append(left, zeros(v.Field(i), path+"."+v.Type().Field(i).Name)...)
	}
	return left
}

// request fills a message, translates it, and wants every field of the result
// set but those named.
func request[Q, K any](t *testing.T, in func(*Q) (K, error), but ...string) {
	t.Helper()
	q := new(Q)
	fill(any(q).(proto.Message).ProtoReflect())
	k, err := in(q)
	if err != nil {
		t.Fatalf("%T: %v", q, err)
	}
	if left := zeros(reflect.ValueOf(k), ""); !reflect.DeepEqual(left, but) && len(left)+len(but) > 0 {
		t.Errorf("%T leaves %v of %T empty, not %v", q, left, k, but)
	}
}

// plain adapts a translation that cannot fail.
func plain[Q, K any](in func(*Q) *K) func(*Q) (K, error) {
	return func(q *Q) (K, error) { return *in(q), nil }
}

func TestRequestsAreWhole(t *testing.T) {
	request(t, plain(Encrypt))
	request(t, plain(Decrypt))
	request(t, plain(ReEncrypt))
	request(t, plain(GenerateDataKey))
	request(t, plain(GenerateDataKeyPair))
	request(t, plain(GenerateRandom))
	request(t, plain(Sign))
	request(t, plain(Verify))
	request(t, plain(GenerateMAC))
	request(t, plain(VerifyMAC))
	request(t, plain(AsymmetricDecrypt))
	request(t, plain(DeriveSharedSecret))
	request(t, plain(GetPublicKey))
	request(t, CreateKey, ".Transit") // made by the Vault-compatible API alone
	request(t, GetKey, ".Idempotency")
	request(t, ListKeys)
	request(t, UpdateKey)
	request(t, RotateKey)
	request(t, GetVersion, ".Idempotency")
	request(t, ListVersions)
	request(t, SetPrimaryVersion)
	request(t, EnableVersion)
	request(t, DisableVersion)
	request(t, RestoreVersion)
	request(t, DestroyVersion)
	request(t, DeleteKey, ".Version")
	request(t, RestoreKey)
	request(t, GetImportParameters)
	request(t, ImportKey)
	request(t, ImportKeyVersion)
	request(t, ExportKey)
	request(t, RestoreVaultKey)
	request(t, BackupVaultKey)
	request(t, CreateNamespace)
	request(t, GetNamespace)
	request(t, ListNamespaces, ".Namespace")
	request(t, UpdateNamespace)
	request(t, DeleteNamespace)
	request(t, RestoreNamespace)
	request(t, RekeyNamespace)
	request(t, ConfirmErasure)
	request(t, PutPolicy)
	request(t, GetPolicy, ".ConfirmLockout", ".Idempotency")
	request(t, ListPolicies)
	request(t, DeletePolicy)
	request(t, PutGroup)
	request(t, GetGroup, ".ConfirmLockout", ".Idempotency")
	request(t, ListGroups, ".Namespace")
	request(t, DeleteGroup)
	request(t, ExplainDecision, ".Entry") // it excludes .Supposed, which is filled last
	request(t, TestPolicies)
	request(t, DiffPolicies)
	request(t, ListPermitted)
	request(t, CreateToken)
	request(t, RenewToken)
	request(t, RevokeTokens)
	request(t, ListRevocations, ".Namespace")
	request(t, func(q *pb.TailEntriesRequest) (audit.Filter, error) {
		f, _, err := TailEntries(q)
		return f, err
	}, ".From", ".To", ".KeyID", ".Limit", ".Newest")
}

// populate gives every field of a struct a value that is not zero, as deep as
// types nest that do not hold themselves.
func populate(v reflect.Value) { populateTo(v, 6) }

func populateTo(v reflect.Value, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(time.Unix(1e9, 0)))
			return
		}
		for i := range v.NumField() {
			populateTo(v.Field(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			populateTo(v.Index(i), depth-1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		populateTo(v.Index(0), depth-1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		populateTo(key, depth-1)
		populateTo(value, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		populateTo(v.Elem(), depth-1)
	case reflect.String:
		v.SetString("ENABLED")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	default:
		v.SetUint(7)
	}
}

// response populates a struct, translates it, and wants every field of the
// message set but those named.
func response[R, P any](t *testing.T, out func(R) *P, but ...protoreflect.Name) {
	t.Helper()
	var r R
	if v := reflect.ValueOf(&r).Elem(); v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		populate(v.Elem())
	} else {
		populate(v)
	}
	m := any(out(r)).(proto.Message).ProtoReflect()
	var left []protoreflect.Name
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); !m.Has(f) {
			left = append(left, f.Name())
		}
	}
	if !reflect.DeepEqual(left, but) && len(left)+len(but) > 0 {
		t.Errorf("%T leaves %v of %s empty, not %v", r, left, m.Descriptor().Name(), but)
	}
}

func TestResponsesAreWhole(t *testing.T) {
	response(t, Encrypted)
	response(t, Decrypted)
	response(t, ReEncrypted)
	response(t, GeneratedDataKey)
	response(t, GeneratedDataKeyPair)
	response(t, GeneratedRandom)
	response(t, Signed)
	response(t, Verified)
	response(t, GeneratedMAC)
	response(t, VerifiedMAC)
	response(t, AsymmetricDecrypted)
	response(t, DerivedSharedSecret)
	response(t, PublicKey)
	response(t, Policy)
	response(t, Group)
	response(t, considered)
	response(t, permitted)
	response(t, changedDecision)
	response(t, explanation)
	response(t, ExplainedDecision)
	response(t, TestedPolicies)
	response(t, PolicyDiff)
	response(t, PermittedList)
	response(t, NewToken)
	response(t, RenewedToken)
	response(t, Revocation)
	response(t, RevokedTokens)
	response(t, KeyVersion, "protection_level")
	response(t, ExportedKey)
	response(t, ImportParameters, "protection_level")
	// "ENABLED" is no purpose, protection or other state; the end-to-end tests have those.
	response(t, Namespace, "state")
	response(t, Key, "purpose", "protection_level", "state")
	response(t, vaultKey)
	response(t, func(s kms.Status) *pb.Status { return Status(s, "v") })
	response(t, func(s kms.Status) *pb.HsmStatus { return Status(s, "v").Hsm })
	response(t, func(s kms.Status) *pb.StoreStatus { return Status(s, "v").Store })
	response(t, func(s kms.Status) *pb.AuditStatus { return Status(s, "v").Audit }, "healthy")
}
