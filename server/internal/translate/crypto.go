package translate

import (
	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// format keeps a number that is no format outside the core's range as well.
func format(f pb.SignatureFormat) keyring.Format {
	if f < 0 || f > 255 {
		return 255
	}
	return keyring.Format(f)
}

// Encrypt reads an EncryptRequest.
func Encrypt(q *pb.EncryptRequest) *kms.EncryptRequest {
	return &kms.EncryptRequest{Namespace: q.Namespace, Key: q.Key, Plaintext: q.Plaintext,
		Binding: kms.Binding{AAD: q.Aad, Context: q.EncryptionContext}}
}

// Encrypted writes an EncryptResponse.
func Encrypted(r *kms.EncryptResponse) *pb.EncryptResponse {
	return &pb.EncryptResponse{Ciphertext: r.Ciphertext, Version: r.Version}
}

// Decrypt reads a DecryptRequest.
func Decrypt(q *pb.DecryptRequest) *kms.DecryptRequest {
	return &kms.DecryptRequest{Namespace: q.Namespace, Key: q.Key, Ciphertext: q.Ciphertext,
		Binding: kms.Binding{AAD: q.Aad, Context: q.EncryptionContext}}
}

// Decrypted writes a DecryptResponse.
func Decrypted(r *kms.DecryptResponse) *pb.DecryptResponse {
	return &pb.DecryptResponse{Plaintext: r.Plaintext, Version: r.Version}
}

// ReEncrypt reads a ReEncryptRequest.
func ReEncrypt(q *pb.ReEncryptRequest) *kms.ReEncryptRequest {
	return &kms.ReEncryptRequest{Namespace: q.Namespace, Key: q.Key, Ciphertext: q.Ciphertext,
		Binding:              kms.Binding{AAD: q.Aad, Context: q.EncryptionContext},
		DestinationNamespace: q.DestinationNamespace, DestinationKey: q.DestinationKey,
		DestinationBinding: kms.Binding{AAD: q.DestinationAad, Context: q.DestinationEncryptionContext}}
}

// ReEncrypted writes a ReEncryptResponse.
func ReEncrypted(r *kms.ReEncryptResponse) *pb.ReEncryptResponse {
	return &pb.ReEncryptResponse{Ciphertext: r.Ciphertext, SourceKey: r.SourceKey,
		SourceVersion: r.SourceVersion, DestinationVersion: r.DestinationVersion}
}

// GenerateDataKey reads a GenerateDataKeyRequest.
func GenerateDataKey(q *pb.GenerateDataKeyRequest) *kms.GenerateDataKeyRequest {
	return &kms.GenerateDataKeyRequest{Namespace: q.Namespace, Key: q.Key, Size: int(q.NumBytes),
		Binding: kms.Binding{AAD: q.Aad, Context: q.EncryptionContext}, OmitPlaintext: q.OmitPlaintext}
}

// GeneratedDataKey writes a GenerateDataKeyResponse.
func GeneratedDataKey(r *kms.GenerateDataKeyResponse) *pb.GenerateDataKeyResponse {
	return &pb.GenerateDataKeyResponse{Plaintext: r.Plaintext, Ciphertext: r.Ciphertext, Version: r.Version}
}

// GenerateDataKeyPair reads a GenerateDataKeyPairRequest.
func GenerateDataKeyPair(q *pb.GenerateDataKeyPairRequest) *kms.GenerateDataKeyPairRequest {
	return &kms.GenerateDataKeyPairRequest{Namespace: q.Namespace, Key: q.Key, Algorithm: q.Algorithm,
		Binding: kms.Binding{AAD: q.Aad, Context: q.EncryptionContext}, OmitPlaintext: q.OmitPlaintext}
}

// GeneratedDataKeyPair writes a GenerateDataKeyPairResponse.
func GeneratedDataKeyPair(r *kms.GenerateDataKeyPairResponse) *pb.GenerateDataKeyPairResponse {
	return &pb.GenerateDataKeyPairResponse{PublicKey: r.PublicKey, PrivateKey: r.PrivateKey,
		PrivateKeyCiphertext: r.PrivateKeyCiphertext, Version: r.Version}
}

// GenerateRandom reads a GenerateRandomRequest.
func GenerateRandom(q *pb.GenerateRandomRequest) *kms.GenerateRandomRequest {
	return &kms.GenerateRandomRequest{Namespace: q.Namespace, Size: int(q.NumBytes)}
}

// GeneratedRandom writes a GenerateRandomResponse.
func GeneratedRandom(r *kms.GenerateRandomResponse) *pb.GenerateRandomResponse {
	return &pb.GenerateRandomResponse{Data: r.Data}
}

// Sign reads a SignRequest.
func Sign(q *pb.SignRequest) *kms.SignRequest {
	return &kms.SignRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version,
		Message: q.Message, Digest: q.Digest, Format: format(q.Format)}
}

// Signed writes a SignResponse.
func Signed(r *kms.SignResponse) *pb.SignResponse {
	return &pb.SignResponse{Signature: r.Signature, Version: r.Version}
}

// Verify reads a VerifyRequest.
func Verify(q *pb.VerifyRequest) *kms.VerifyRequest {
	return &kms.VerifyRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version,
		Message: q.Message, Digest: q.Digest, Signature: q.Signature, Format: format(q.Format)}
}

// Verified writes a VerifyResponse.
func Verified(r *kms.VerifyResponse) *pb.VerifyResponse {
	return &pb.VerifyResponse{Valid: r.Valid, Version: r.Version}
}

// GenerateMAC reads a GenerateMacRequest.
func GenerateMAC(q *pb.GenerateMacRequest) *kms.MACRequest {
	return &kms.MACRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version, Message: q.Message}
}

// GeneratedMAC writes a GenerateMacResponse.
func GeneratedMAC(r *kms.MACResponse) *pb.GenerateMacResponse {
	return &pb.GenerateMacResponse{Mac: r.MAC, Version: r.Version}
}

// VerifyMAC reads a VerifyMacRequest.
func VerifyMAC(q *pb.VerifyMacRequest) *kms.VerifyMACRequest {
	return &kms.VerifyMACRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version, Message: q.Message, MAC: q.Mac}
}

// VerifiedMAC writes a VerifyMacResponse.
func VerifiedMAC(r *kms.VerifyResponse) *pb.VerifyMacResponse {
	return &pb.VerifyMacResponse{Valid: r.Valid, Version: r.Version}
}

// AsymmetricDecrypt reads an AsymmetricDecryptRequest.
func AsymmetricDecrypt(q *pb.AsymmetricDecryptRequest) *kms.AsymmetricDecryptRequest {
	return &kms.AsymmetricDecryptRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version,
		Ciphertext: q.Ciphertext, Label: q.Label}
}

// AsymmetricDecrypted writes an AsymmetricDecryptResponse.
func AsymmetricDecrypted(r *kms.DecryptResponse) *pb.AsymmetricDecryptResponse {
	return &pb.AsymmetricDecryptResponse{Plaintext: r.Plaintext, Version: r.Version}
}

// DeriveSharedSecret reads a DeriveSharedSecretRequest.
func DeriveSharedSecret(q *pb.DeriveSharedSecretRequest) *kms.SharedSecretRequest {
	return &kms.SharedSecretRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version, PeerPublicKey: q.PeerPublicKey}
}

// DerivedSharedSecret writes a DeriveSharedSecretResponse.
func DerivedSharedSecret(r *kms.SharedSecretResponse) *pb.DeriveSharedSecretResponse {
	return &pb.DeriveSharedSecretResponse{SharedSecret: r.SharedSecret, Version: r.Version}
}

// GetPublicKey reads a GetPublicKeyRequest.
func GetPublicKey(q *pb.GetPublicKeyRequest) *kms.PublicKeyRequest {
	return &kms.PublicKeyRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version}
}

// PublicKey writes a GetPublicKeyResponse.
func PublicKey(r *kms.PublicKeyResponse) *pb.GetPublicKeyResponse {
	return &pb.GetPublicKeyResponse{Pem: r.PEM, Jwk: r.JWK, Version: r.Version, Algorithm: r.Algorithm}
}
