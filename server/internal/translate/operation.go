package translate

import (
	"fmt"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Operation reads one operation of a batch or a pipeline. One that names no
// namespace gets the given one, and one that names no key either the given key,
// where its kind has a key. What is absent or of a kind that this server does
// not know is refused.
func Operation(o *pb.Operation, namespace, key string) (kms.Operation, error) {
	operation, itsNamespace, itsKey := operation(o)
	if operation == nil {
		return nil, invalid("operation", "operation is empty or unknown to this server; set one request")
	}
	if *itsNamespace == "" {
		*itsNamespace = namespace
		if itsKey != nil && *itsKey == "" {
			*itsKey = key
		}
	}
	return operation, nil
}

// operation also returns where the request has its namespace and its key.
func operation(o *pb.Operation) (_ kms.Operation, namespace, key *string) {
	switch q := o.GetRequest().(type) {
	case *pb.Operation_Encrypt:
		r := Encrypt(q.Encrypt)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_Decrypt:
		r := Decrypt(q.Decrypt)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_ReEncrypt:
		r := ReEncrypt(q.ReEncrypt)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_GenerateDataKey:
		r := GenerateDataKey(q.GenerateDataKey)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_GenerateDataKeyPair:
		r := GenerateDataKeyPair(q.GenerateDataKeyPair)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_GenerateRandom:
		r := GenerateRandom(q.GenerateRandom)
		return r, &r.Namespace, nil
	case *pb.Operation_Sign:
		r := Sign(q.Sign)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_Verify:
		r := Verify(q.Verify)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_GenerateMac:
		r := GenerateMAC(q.GenerateMac)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_VerifyMac:
		r := VerifyMAC(q.VerifyMac)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_AsymmetricDecrypt:
		r := AsymmetricDecrypt(q.AsymmetricDecrypt)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_DeriveSharedSecret:
		r := DeriveSharedSecret(q.DeriveSharedSecret)
		return r, &r.Namespace, &r.Key
	case *pb.Operation_GetPublicKey:
		r := GetPublicKey(q.GetPublicKey)
		return r, &r.Namespace, &r.Key
	}
	return nil, nil, nil
}

// Failure writes the error of one operation.
func Failure(e *pb.OperationError) *pb.OperationResult {
	return &pb.OperationResult{Result: &pb.OperationResult_Error{Error: e}}
}

// Response writes the core's response to o, whose kind also tells apart the two
// pairs of methods that share a response type.
func Response(o *pb.Operation, response any) *pb.OperationResult {
	switch r := response.(type) {
	case *kms.EncryptResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_Encrypt{Encrypt: Encrypted(r)}}
	case *kms.DecryptResponse:
		if _, asymmetric := o.GetRequest().(*pb.Operation_AsymmetricDecrypt); asymmetric {
			return &pb.OperationResult{Result: &pb.OperationResult_AsymmetricDecrypt{AsymmetricDecrypt: AsymmetricDecrypted(r)}}
		}
		return &pb.OperationResult{Result: &pb.OperationResult_Decrypt{Decrypt: Decrypted(r)}}
	case *kms.ReEncryptResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_ReEncrypt{ReEncrypt: ReEncrypted(r)}}
	case *kms.GenerateDataKeyResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_GenerateDataKey{GenerateDataKey: GeneratedDataKey(r)}}
	case *kms.GenerateDataKeyPairResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_GenerateDataKeyPair{GenerateDataKeyPair: GeneratedDataKeyPair(r)}}
	case *kms.GenerateRandomResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_GenerateRandom{GenerateRandom: GeneratedRandom(r)}}
	case *kms.SignResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_Sign{Sign: Signed(r)}}
	case *kms.VerifyResponse:
		if _, mac := o.GetRequest().(*pb.Operation_VerifyMac); mac {
			return &pb.OperationResult{Result: &pb.OperationResult_VerifyMac{VerifyMac: VerifiedMAC(r)}}
		}
		return &pb.OperationResult{Result: &pb.OperationResult_Verify{Verify: Verified(r)}}
	case *kms.MACResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_GenerateMac{GenerateMac: GeneratedMAC(r)}}
	case *kms.SharedSecretResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_DeriveSharedSecret{DeriveSharedSecret: DerivedSharedSecret(r)}}
	case *kms.PublicKeyResponse:
		return &pb.OperationResult{Result: &pb.OperationResult_GetPublicKey{GetPublicKey: PublicKey(r)}}
	}
	panic(fmt.Sprintf("no message for %T", response))
}
