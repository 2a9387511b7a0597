package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the state of server, HSM, store and audit log", Args: arguments(0, 0),
		RunE: a.run(func(ctx context.Context, c *client.Client, _ []string) error {
			status, err := c.GetStatus(ctx, &keywrightv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			return describe(a, statusColumns(), status)
		})}
}

func statusColumns() []ui.Column[*keywrightv1.Status] {
	type s = *keywrightv1.Status
	return []ui.Column[s]{
		{Title: "version", Value: s.GetVersion},
		{Title: "installation", Value: s.GetInstallationId},
		{Title: "started", Value: func(s s) string { return ui.Time(s.GetStartTime()) }},
		{Title: "dev mode", Value: func(s s) string { return yesNo(s.GetDevMode()) }},
		{Title: "FIPS 140-3 mode", Value: func(s s) string { return yesNo(s.GetFips()) }},
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
			return fmt.Sprintf("%s, revision %d", s.GetStore().GetDriver(), s.GetStore().GetRevision())
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

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) algorithmsCommand() *cobra.Command {
	return &cobra.Command{Use: "algorithms", Short: "List the algorithms that keys can have", Args: arguments(0, 0),
		RunE: a.run(func(ctx context.Context, c *client.Client, _ []string) error {
			response, err := c.ListAlgorithms(ctx, &keywrightv1.ListAlgorithmsRequest{})
			if err != nil {
				return err
			}
			return list(a, algorithmColumns(), response.GetAlgorithms())
		})}
}

func algorithmColumns() []ui.Column[*keywrightv1.Algorithm] {
	type alg = *keywrightv1.Algorithm
	return []ui.Column[alg]{
		{Title: "algorithm", Value: alg.GetName},
		{Title: "purpose", Value: alg.GetPurpose},
		{Title: "key bits", Value: func(g alg) string { return number(g.GetKeyBits()) }},
		{Title: "FIPS", Value: func(g alg) string { return yesNo(g.GetFips()) }},
		{Title: "default", Value: func(g alg) string { return yesNo(g.GetDefault()) }},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of this program", Args: arguments(0, 0),
		RunE: a.local(func(context.Context, []string) error {
			if a.json() {
				return ui.ValueJSON(a.Out, map[string]string{"version": a.version})
			}
			_, err := fmt.Fprintln(a.Out, "keywright", a.version)
			return err
		})}
}
