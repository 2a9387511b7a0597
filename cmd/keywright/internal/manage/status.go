package manage

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the state of server, HSM, store and audit log", Args: command.Arguments(0, 0),
		RunE: a.Run(a.watched(func(ctx context.Context, c *client.Client, _ []string) error {
			status, err := c.GetStatus(ctx, &keywrightv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			return command.Describe(a.App, statusColumns(), status)
		}))}
}

func statusColumns() []ui.Column[*keywrightv1.Status] {
	type s = *keywrightv1.Status
	return []ui.Column[s]{
		{Title: "version", Value: s.GetVersion},
		{Title: "installation", Value: s.GetInstallationId},
		{Title: "started", Value: func(s s) string { return ui.Time(s.GetStartTime()) }},
		{Title: "dev mode", Value: func(s s) string { return ui.YesNo(s.GetDevMode()) }},
		{Title: "FIPS 140-3 mode", Value: func(s s) string { return ui.YesNo(s.GetFips()) }},
		{Title: "HSM", Value: func(s s) string { return health(s.GetHsm().GetHealthy(), s.GetHsm().GetProblem()) }},
		{Title: "token", Value: func(s s) string {
			return fmt.Sprintf("%s (serial %s, %s %s)", s.GetHsm().GetTokenLabel(), s.GetHsm().GetTokenSerial(), s.GetHsm().GetManufacturer(), s.GetHsm().GetModel())
		}},
		{Title: "root key", Value: func(s s) string {
			return fmt.Sprintf("%s, version %d", s.GetHsm().GetRootKeyId(), s.GetHsm().GetRootVersion())
		}},
		{Title: "tokens", Value: tokenList},
		{Title: "sealed", Value: func(s s) string { return ui.Time(s.GetSealTime()) }},
		{Title: "wrapping anew", Value: rewrapText},
		{Title: "sessions", Value: func(s s) string {
			return fmt.Sprintf("%d of %d in use", s.GetHsm().GetSessionsInUse(), s.GetHsm().GetSessionsMax())
		}},
		{Title: "keys on the token", Value: tokenKeysText},
		{Title: "store", Value: func(s s) string {
			return fmt.Sprintf("%s, revision %d", ui.Cell(s.GetStore().GetDriver()), s.GetStore().GetRevision())
		}},
		{Title: "plaintext export", Value: plaintextExportText},
		{Title: "epoch", Value: func(s s) string { return strconv.FormatUint(s.GetEpoch(), 10) }},
		{Title: "policy revision", Value: func(s s) string { return strconv.FormatUint(s.GetPolicyRevision(), 10) }},
		{Title: "audit log", Value: func(s s) string { return health(s.GetAudit().GetHealthy(), s.GetAudit().GetProblem()) }},
		{Title: "audit entries", Value: func(s s) string { return strconv.FormatUint(s.GetAudit().GetNextSequence(), 10) }},
		{Title: "audit signed", Value: signed},
		{Title: "receivers", Value: receiverList},
		{Title: "audit durability", Value: func(s s) string { return s.GetAudit().GetDurability() }},
		{Title: "audit key", Value: func(s s) string {
			return fmt.Sprintf("%s, %s", s.GetAudit().GetSignerAlgorithm(), s.GetAudit().GetSignerProtection())
		}},
	}
}

// tokenKeysText says how the keys of protection level HSM and the token fit.
func tokenKeysText(s *keywrightv1.Status) string {
	k := s.GetHsm().GetKeys()
	if k.GetCheckTime() == nil {
		return "not compared yet"
	}
	text := fmt.Sprintf("%d, compared at %s", k.GetHeld(), ui.Time(k.GetCheckTime()))
	if k.GetOrphans()+k.GetUnknown()+k.GetMissing() > 0 {
		text += fmt.Sprintf("; %d to be removed, %d unknown, %d MISSING", k.GetOrphans(), k.GetUnknown(), k.GetMissing())
	}
	return text
}

// plaintextExportText says how many namespaces let key material leave in plaintext.
func plaintextExportText(s *keywrightv1.Status) string {
	switch n := s.GetPlaintextExportNamespaces(); n {
	case 0:
		return ""
	case 1:
		return "1 namespace"
	default:
		return fmt.Sprintf("%d namespaces", n)
	}
}

func signed(s *keywrightv1.Status) string {
	at := s.GetAudit().GetCheckpointTime()
	if at == nil {
		return fmt.Sprintf("%d entries", s.GetAudit().GetSignedSize())
	}
	return fmt.Sprintf("%d entries, at %s", s.GetAudit().GetSignedSize(), ui.Time(at))
}

// receiverList says how the receivers of checkpoints do, one after another.
func receiverList(s *keywrightv1.Status) string {
	var all []string
	for _, r := range s.GetAudit().GetReceivers() {
		all = append(all, fmt.Sprintf("%s: %s, %d entries", ui.Cell(r.GetName()), health(r.GetProblem() == "", ui.Cell(r.GetProblem())), r.GetSize()))
	}
	return strings.Join(all, "; ")
}

func health(healthy bool, problem string) string {
	if healthy {
		return "healthy"
	}
	return "NOT HEALTHY: " + problem
}

func (a app) algorithmsCommand() *cobra.Command {
	return &cobra.Command{Use: "algorithms", Short: "List the algorithms that keys can have", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			response, err := c.ListAlgorithms(ctx, &keywrightv1.ListAlgorithmsRequest{})
			if err != nil {
				return err
			}
			return command.List(a.App, algorithmColumns(), response.GetAlgorithms())
		})}
}

func algorithmColumns() []ui.Column[*keywrightv1.Algorithm] {
	type alg = *keywrightv1.Algorithm
	return []ui.Column[alg]{
		{Title: "algorithm", Value: alg.GetName},
		{Title: "purpose", Value: alg.GetPurpose},
		{Title: "key bits", Value: func(g alg) string { return ui.Number(g.GetKeyBits()) }},
		{Title: "FIPS", Value: func(g alg) string { return ui.YesNo(g.GetFips()) }},
		{Title: "HSM", Value: func(g alg) string { return ui.YesNo(g.GetHsm()) }},
		{Title: "default", Value: func(g alg) string { return ui.YesNo(g.GetDefault()) }},
	}
}
