package manage

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the state of server, HSM, store and audit log", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			status, err := c.GetStatus(ctx, &keywrightv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			return command.Describe(a.App, statusColumns(), status)
		})}
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
		{Title: "sessions", Value: func(s s) string {
			return fmt.Sprintf("%d of %d in use", s.GetHsm().GetSessionsInUse(), s.GetHsm().GetSessionsMax())
		}},
		{Title: "store", Value: func(s s) string {
			return fmt.Sprintf("%s, revision %d", ui.Cell(s.GetStore().GetDriver()), s.GetStore().GetRevision())
		}},
		{Title: "policy revision", Value: func(s s) string { return strconv.FormatUint(s.GetPolicyRevision(), 10) }},
		{Title: "audit log", Value: func(s s) string { return health(s.GetAudit().GetHealthy(), s.GetAudit().GetProblem()) }},
		{Title: "audit entries", Value: func(s s) string { return strconv.FormatUint(s.GetAudit().GetNextSequence(), 10) }},
		{Title: "audit durability", Value: func(s s) string { return s.GetAudit().GetDurability() }},
		{Title: "audit signer", Value: func(s s) string {
			return fmt.Sprintf("%s, %s", s.GetAudit().GetSignerAlgorithm(), s.GetAudit().GetSignerProtection())
		}},
	}
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
		{Title: "default", Value: func(g alg) string { return ui.YesNo(g.GetDefault()) }},
	}
}
