package translate

import (
	"slices"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Status writes a Status of a server of this version.
func Status(s kms.Status, version string) *pb.Status {
	device := hsm(s.HSM, s.RootKeyID, s.RootVersion)
	device.Keys = tokenKeys(s.Objects)
	return &pb.Status{
		Version: version, InstallationId: s.InstallationID, StartTime: timestamp(s.Started),
		DevMode: s.DevMode, Fips: s.FIPS, PolicyRevision: s.PolicyRevision,
		Hsm:   device,
		Store: &pb.StoreStatus{Driver: s.StoreName, Revision: uint64(s.StoreRevision)},
		Audit: &pb.AuditStatus{
			Healthy: s.AuditProblem == "", Problem: s.AuditProblem, NextSequence: s.AuditNext, Durability: string(s.AuditDurability),
			SignerAlgorithm: s.SignerAlgorithm, SignerProtection: s.SignerProtection,
			SignedSize: s.Audit.Signed, CheckpointTime: timestamp(s.CheckpointTime), FirstSequence: s.Audit.First,
			Receivers: each(s.Receivers, receiver),
		},
		Epoch: s.Epoch, Tokens: each(s.Tokens, token), SealTime: timestamp(s.Sealed),
		RewrapRemaining: s.Rewrap.Remaining, RewrapProblem: s.Rewrap.Problem,
		PlaintextExportNamespaces: uint64(s.Keys.PlaintextExport),
	}
}

func receiver(r kms.ReceiverStatus) *pb.CheckpointReceiver {
	return &pb.CheckpointReceiver{Name: r.Name, Size: r.Size, Time: timestamp(r.Time), Problem: r.Problem}
}

func tokenKeys(c kms.ObjectCounts) *pb.TokenKeys {
	return &pb.TokenKeys{CheckTime: timestamp(c.Time), Held: uint64(c.Held), Orphans: uint64(c.Orphans),
		Unknown: uint64(c.Unknown), Missing: uint64(c.Missing)}
}

// Algorithms writes a ListAlgorithmsResponse of the whole table, where the token can
// do those that are named.
func Algorithms(onToken []string) *pb.ListAlgorithmsResponse {
	return &pb.ListAlgorithmsResponse{Algorithms: each(keyring.Algorithms(), func(a *keyring.Algorithm) *pb.Algorithm {
		return &pb.Algorithm{Name: a.Name(), Purpose: string(a.Purpose()), Fips: a.FIPS(),
			Default: keyring.Default(a.Purpose()) == a, KeyBits: uint32(a.KeySize()), Hsm: slices.Contains(onToken, a.Name())}
	})}
}
