package translate

import (
	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Status writes a Status of a server of this version.
func Status(s kms.Status, version string) *pb.Status {
	return &pb.Status{
		Version: version, InstallationId: s.InstallationID, StartTime: timestamp(s.Started),
		DevMode: s.DevMode, Fips: s.FIPS, PolicyRevision: s.PolicyRevision,
		Hsm: &pb.HsmStatus{
			Healthy: s.HSM.Healthy, Problem: s.HSM.Problem, TokenLabel: s.HSM.TokenLabel, TokenSerial: s.HSM.TokenSerial,
			Manufacturer: s.HSM.Manufacturer, Model: s.HSM.Model, RootKeyId: s.RootKeyID, RootVersion: s.RootVersion,
			SessionsInUse: uint32(s.HSM.SessionsInUse), SessionsMax: uint32(s.HSM.SessionsMax),
		},
		Store: &pb.StoreStatus{Driver: s.StoreName, Revision: uint64(s.StoreRevision)},
		Audit: &pb.AuditStatus{
			Healthy: s.AuditProblem == "", Problem: s.AuditProblem, NextSequence: s.AuditNext, Durability: string(s.AuditDurability),
			SignerAlgorithm: s.SignerAlgorithm, SignerProtection: s.SignerProtection,
		},
	}
}

// Algorithms writes a ListAlgorithmsResponse of the whole table.
func Algorithms() *pb.ListAlgorithmsResponse {
	return &pb.ListAlgorithmsResponse{Algorithms: each(keyring.Algorithms(), algorithm)}
}

func algorithm(a *keyring.Algorithm) *pb.Algorithm {
	return &pb.Algorithm{Name: a.Name(), Purpose: string(a.Purpose()), Fips: a.FIPS(),
		Default: keyring.Default(a.Purpose()) == a, KeyBits: uint32(a.KeySize())}
}
