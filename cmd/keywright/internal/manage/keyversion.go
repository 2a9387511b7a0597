package manage

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// versionCommandOf returns a command on one version of a key.
func (a app) versionCommandOf(use, short string, do func(ctx context.Context, c *client.Client, namespace, key string, version uint32) error) *cobra.Command {
	var version uint32
	cmd := &cobra.Command{Use: use + " NAMESPACE/KEY --version N", Short: short, Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			if version == 0 {
				return command.Usagef("say which version by --version; `key versions` lists them")
			}
			return do(ctx, c, namespace, key, version)
		})}
	command.AddVersion(cmd, &version, "the version")
	return cmd
}

func (a app) keyVersions() *cobra.Command {
	return &cobra.Command{Use: "versions NAMESPACE/KEY", Short: "List the versions of a key", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			return command.ListPages(ctx, a.App, versionColumns(), func(ctx context.Context, token string) ([]*keywrightv1.KeyVersion, string, error) {
				page, err := c.ListVersions(ctx, &keywrightv1.ListVersionsRequest{Namespace: namespace, Key: key, PageSize: command.MaxPage, PageToken: token})
				return page.GetVersions(), page.GetNextPageToken(), err
			})
		})}
}

func (a app) keySetPrimary() *cobra.Command {
	return a.versionCommandOf("set-primary", "Make a version the one that encrypts and signs",
		func(ctx context.Context, c *client.Client, namespace, key string, version uint32) error {
			return a.showKey(c.SetPrimaryVersion(ctx, &keywrightv1.SetPrimaryVersionRequest{
				Namespace: namespace, Key: key, Version: version, IdempotencyKey: command.IdempotencyKey()}))
		})
}

func (a app) keyEnable() *cobra.Command {
	return a.versionCommandOf("enable", "Let a disabled version be used again",
		func(ctx context.Context, c *client.Client, namespace, key string, version uint32) error {
			return a.showVersion(c.EnableVersion(ctx, &keywrightv1.EnableVersionRequest{
				Namespace: namespace, Key: key, Version: version, IdempotencyKey: command.IdempotencyKey()}))
		})
}

func (a app) keyDisable() *cobra.Command {
	var yes bool
	cmd := a.versionCommandOf("disable", "Make a version refuse use",
		func(ctx context.Context, c *client.Client, namespace, key string, version uint32) error {
			name := namespace + "/" + key
			if err := a.Confirm(yes, fmt.Sprintf("What version %d of %s has encrypted or signed cannot be decrypted or verified while it is disabled", version, name), name); err != nil {
				return err
			}
			return a.showVersion(c.DisableVersion(ctx, &keywrightv1.DisableVersionRequest{
				Namespace: namespace, Key: key, Version: version, IdempotencyKey: command.IdempotencyKey()}))
		})
	addYes(cmd, &yes)
	return cmd
}

func (a app) keyDestroy() *cobra.Command {
	var destroy destroyFlags
	cmd := a.versionCommandOf("destroy", "Schedule the destruction of a version",
		func(ctx context.Context, c *client.Client, namespace, key string, version uint32) error {
			name := namespace + "/" + key
			if err := a.Confirm(destroy.yes, fmt.Sprintf("This makes version %d of %s unusable at once and schedules its destruction", version, name), name); err != nil {
				return err
			}
			return a.showVersion(c.DestroyVersion(ctx, &keywrightv1.DestroyVersionRequest{
				Namespace: namespace, Key: key, Version: version, Delay: destroy.delay.Proto(), IdempotencyKey: command.IdempotencyKey()}))
		})
	destroy.add(cmd)
	return cmd
}

func (a app) restoreVersion(ctx context.Context, c *client.Client, name string, version uint32) error {
	namespace, key, err := a.KeyName(name)
	if err != nil {
		return err
	}
	return a.showVersion(c.RestoreVersion(ctx, &keywrightv1.RestoreVersionRequest{
		Namespace: namespace, Key: key, Version: version, IdempotencyKey: command.IdempotencyKey()}))
}

func (a app) keyPublic() *cobra.Command {
	var version uint32
	var format string
	cmd := &cobra.Command{Use: "public-key NAMESPACE/KEY", Short: "Print the public key of a version, PEM or JWK", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			if format != "pem" && format != "jwk" {
				return command.Usagef("--format must be pem or jwk, not %q", format)
			}
			public, err := c.GetPublicKey(ctx, &keywrightv1.GetPublicKeyRequest{Namespace: namespace, Key: key, Version: version})
			switch {
			case err != nil:
				return err
			case a.JSON():
				return ui.JSON(a.Out, public)
			case format == "jwk":
				_, err = fmt.Fprintln(a.Out, public.GetJwk())
			default:
				_, err = fmt.Fprint(a.Out, public.GetPem())
			}
			return err
		})}
	command.AddVersion(cmd, &version, "the version; the primary one if not given")
	cmd.Flags().StringVar(&format, "format", "pem", "pem or jwk")
	return cmd
}

func (a app) showVersion(version *keywrightv1.KeyVersion, err error) error {
	if err != nil {
		return err
	}
	return command.Describe(a.App, versionColumns(), version)
}

func versionColumns() []ui.Column[*keywrightv1.KeyVersion] {
	type v = *keywrightv1.KeyVersion
	return []ui.Column[v]{
		{Title: "version", Value: func(v v) string { return ui.Number(v.GetVersion()) }},
		{Title: "key", Detail: true, Value: func(v v) string { return v.GetNamespace() + "/" + v.GetKey() }},
		{Title: "state", Value: func(v v) string { return v.GetState().String() }},
		{Title: "primary", Value: func(v v) string { return ui.YesNo(v.GetPrimary()) }},
		{Title: "algorithm", Value: v.GetAlgorithm},
		{Title: "material", Detail: true, Value: func(v v) string { return v.GetOrigin().String() }},
		{Title: "imported", Detail: true, Value: func(v v) string { return ui.Time(v.GetImportTime()) }},
		{Title: "protection", Detail: true, Value: func(v v) string { return v.GetProtectionLevel().String() }},
		{Title: "token key", Detail: true, Value: func(v v) string { return v.GetTokenKey().GetId() }},
		{Title: "origin", Detail: true, Value: func(v v) string { return originText(v.GetTokenKey()) }},
		{Title: "created", Value: func(v v) string { return ui.Time(v.GetCreateTime()) }},
		{Title: "last used", Value: func(v v) string { return ui.Time(v.GetLastUsedTime()) }},
		{Title: "destruction", Value: func(v v) string { return ui.Time(v.GetDestroyTime()) }},
		{Title: "erased", Value: func(v v) string { return ui.Time(v.GetEraseTime()) }},
	}
}
