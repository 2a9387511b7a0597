package manage

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) keyCommand() *cobra.Command {
	return a.Group("key", "Create, rotate, disable, restore and destroy keys and their versions",
		a.keyCreate(), a.keyList(), a.keyDescribe(), a.keyUpdate(), a.keyRotate(), a.keyDelete(), a.keyRestore(),
		a.keyVersions(), a.keySetPrimary(), a.keyEnable(), a.keyDisable(), a.keyDestroy(), a.keyPublic(),
		a.keyImportParameters(), a.keyImport(), a.keyExport())
}

// rotationFlags say when a key rotates by itself.
type rotationFlags struct {
	period command.Span
	uses   uint64
	none   bool
}

func (r *rotationFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&r.period, "rotation-period", "rotate by itself this often, such as 90d")
	cmd.Flags().Uint64Var(&r.uses, "rotation-uses", 0, "rotate by itself after this many uses")
}

// proto returns nil when no flag was given.
func (r *rotationFlags) Proto() (*keywrightv1.RotationPolicy, error) {
	given := r.period.Given || r.uses > 0
	switch {
	case given && r.none:
		return nil, command.Usagef("--no-rotation excludes --rotation-period and --rotation-uses")
	case !given && !r.none:
		return nil, nil
	}
	return &keywrightv1.RotationPolicy{Period: r.period.Proto(), MaxUses: r.uses}, nil
}

func (a app) keyCreate() *cobra.Command {
	var purpose, protection, algorithm string
	var labels command.Pairs
	var rotation rotationFlags
	var exportable bool
	cmd := &cobra.Command{Use: "create NAMESPACE/KEY", Short: "Create a key with its first version", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			request := &keywrightv1.CreateKeyRequest{Namespace: namespace, Key: key, Algorithm: algorithm, Labels: labels, Exportable: exportable, IdempotencyKey: command.IdempotencyKey()}
			var err error
			if request.Purpose, err = enum[keywrightv1.Purpose]("purpose", purpose, keywrightv1.Purpose_value); err != nil {
				return err
			}
			if request.ProtectionLevel, err = enum[keywrightv1.ProtectionLevel]("protection", protection, keywrightv1.ProtectionLevel_value); err != nil {
				return err
			}
			if request.Rotation, err = rotation.Proto(); err != nil {
				return err
			}
			return a.showKey(c.CreateKey(ctx, request))
		})}
	flags := cmd.Flags()
	flags.StringVar(&purpose, "purpose", "", "ENCRYPT_DECRYPT, SIGN_VERIFY, MAC, ASYMMETRIC_DECRYPT or KEY_AGREEMENT; the algorithm's if not given")
	flags.StringVar(&algorithm, "algorithm", "", "one that 'keywright algorithms' lists; the purpose's default if not given")
	flags.StringVar(&protection, "protection", "", "SOFTWARE or HSM; SOFTWARE if not given")
	flags.Var(&labels, "label", "a label; repeatable")
	flags.BoolVar(&exportable, "exportable", false, "let the key be exported, wrapped, for ever")
	rotation.add(cmd)
	return cmd
}

// enum finds a value by its name, however it is written: sign-verify is SIGN_VERIFY.
func enum[T ~int32](flag, name string, values map[string]int32) (T, error) {
	if name == "" {
		return 0, nil
	}
	value := values[strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]
	if value == 0 {
		return 0, command.Usagef("--%s does not know %q; see --help", flag, name)
	}
	return T(value), nil
}

func (a app) keyList() *cobra.Command {
	var labels command.Pairs
	var deleted bool
	cmd := &cobra.Command{Use: "list [NAMESPACE]", Short: "List the keys of a namespace", Args: command.Arguments(0, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, err := a.NamespaceArgument(args)
			if err != nil {
				return err
			}
			return command.ListPages(ctx, a.App, keyColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Key, string, error) {
				page, err := c.ListKeys(ctx, &keywrightv1.ListKeysRequest{
					Namespace: namespace, PageSize: command.MaxPage, PageToken: token, Labels: labels, ShowDeleted: deleted})
				return page.GetKeys(), page.GetNextPageToken(), err
			})
		})}
	cmd.Flags().Var(&labels, "label", "only keys that have this label; repeatable")
	cmd.Flags().BoolVar(&deleted, "deleted", false, "also keys that are scheduled for deletion")
	return cmd
}

func (a app) keyDescribe() *cobra.Command {
	var version uint32
	cmd := &cobra.Command{Use: "describe NAMESPACE/KEY", Short: "Show a key, by name or as NAMESPACE/id:ID, or one of its versions", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			if version != 0 {
				return a.showVersion(c.GetVersion(ctx, &keywrightv1.GetVersionRequest{Namespace: namespace, Key: key, Version: version}))
			}
			described, err := c.GetKey(ctx, &keywrightv1.GetKeyRequest{Namespace: namespace, Key: key})
			if err != nil || described.GetProtectionLevel() != keywrightv1.ProtectionLevel_HSM || a.JSON() {
				return a.showKey(described, err)
			}
			return a.showTokenKey(ctx, c, described)
		})}
	command.AddVersion(cmd, &version, "show this version; of protection level HSM also what the token says of it")
	return cmd
}

func (a app) keyUpdate() *cobra.Command {
	var labels labelFlags
	var rotation rotationFlags
	cmd := &cobra.Command{Use: "update NAMESPACE/KEY", Short: "Replace a key's labels or rotation policy", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			request := &keywrightv1.UpdateKeyRequest{Namespace: namespace, Key: key, IdempotencyKey: command.IdempotencyKey()}
			var err error
			if request.Labels, err = labels.Proto(); err != nil {
				return err
			}
			if request.Rotation, err = rotation.Proto(); err != nil {
				return err
			}
			if request.Labels == nil && request.Rotation == nil {
				return command.Usagef("nothing to update; give --label, --no-labels, --rotation-period, --rotation-uses or --no-rotation")
			}
			return a.showKey(c.UpdateKey(ctx, request))
		})}
	labels.add(cmd)
	rotation.add(cmd)
	cmd.Flags().BoolVar(&rotation.none, "no-rotation", false, "no longer rotate by itself")
	return cmd
}

func (a app) keyRotate() *cobra.Command {
	return &cobra.Command{Use: "rotate NAMESPACE/KEY", Short: "Make a new version and make it primary", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			return a.showVersion(c.RotateKey(ctx, &keywrightv1.RotateKeyRequest{Namespace: namespace, Key: key, IdempotencyKey: command.IdempotencyKey()}))
		})}
}

// destroyFlags are those of commands that schedule a destruction.
type destroyFlags struct {
	delay command.Span
	yes   bool
}

func (d *destroyFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&d.delay, "delay", "how long it can still be restored, such as 7d; 30d if not given")
	addYes(cmd, &d.yes)
}

func addYes(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask")
}

func (a app) keyDelete() *cobra.Command {
	var destroy destroyFlags
	cmd := &cobra.Command{Use: "delete NAMESPACE/KEY", Short: "Schedule the destruction of a key with all its versions", Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			name := namespace + "/" + key
			if err := a.Confirm(destroy.yes, "This makes "+name+" unusable at once and schedules the destruction of all its versions", name); err != nil {
				return err
			}
			return a.showKey(c.DeleteKey(ctx, &keywrightv1.DeleteKeyRequest{
				Namespace: namespace, Key: key, Delay: destroy.delay.Proto(), IdempotencyKey: command.IdempotencyKey()}))
		})}
	destroy.add(cmd)
	return cmd
}

func (a app) keyRestore() *cobra.Command {
	var version uint32
	var id string
	cmd := &cobra.Command{Use: "restore {NAMESPACE/KEY --version N | [NAMESPACE] --id ID}", Short: "Take the scheduled destruction of a version or a key back", Args: command.Arguments(0, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			switch {
			case (id == "") == (version == 0):
				return command.Usagef("say what to restore: a version of NAMESPACE/KEY by --version, or a deleted key by --id")
			case id != "":
				return a.restoreKey(ctx, c, args, id)
			case len(args) == 0:
				return command.Usagef("name the key whose version %d is to be restored", version)
			}
			return a.restoreVersion(ctx, c, args[0], version)
		})}
	cmd.Flags().StringVar(&id, "id", "", "id of a deleted key, as 'key list --deleted' shows it")
	command.AddVersion(cmd, &version, "the version to restore")
	return cmd
}

func (a app) restoreKey(ctx context.Context, c *client.Client, args []string, id string) error {
	if len(args) > 0 {
		args = []string{strings.SplitN(args[0], "/", 2)[0]} // a name may have another key now: the id decides
	}
	namespace, err := a.NamespaceArgument(args)
	if err != nil {
		return err
	}
	return a.showKey(c.RestoreKey(ctx, &keywrightv1.RestoreKeyRequest{Namespace: namespace, KeyId: id, IdempotencyKey: command.IdempotencyKey()}))
}

func (a app) showKey(key *keywrightv1.Key, err error) error {
	if err != nil {
		return err
	}
	return command.Describe(a.App, keyColumns(), key)
}

func keyColumns() []ui.Column[*keywrightv1.Key] {
	type k = *keywrightv1.Key
	return []ui.Column[k]{
		{Title: "key", Value: func(k k) string { return k.GetNamespace() + "/" + k.GetName() }},
		{Title: "id", Value: k.GetId},
		{Title: "state", Value: func(k k) string { return k.GetState().String() }},
		{Title: "purpose", Value: func(k k) string { return k.GetPurpose().String() }},
		{Title: "algorithm", Value: k.GetAlgorithm},
		{Title: "protection", Value: func(k k) string { return k.GetProtectionLevel().String() }},
		{Title: "framing", Detail: true, Value: func(k k) string { return k.GetFraming().String() }},
		{Title: "Vault type", Detail: true, Value: func(k k) string { return k.GetVault().GetType() }},
		{Title: "restoring", Detail: true, Value: restoringText},
		{Title: "exportable", Detail: true, Value: func(k k) string { return ui.YesNo(k.GetExportable()) }},
		{Title: "material", Detail: true, Value: func(k k) string { return k.GetOrigin().String() }},
		{Title: "imported", Detail: true, Value: func(k k) string { return ui.Time(k.GetImportTime()) }},
		{Title: "primary", Value: func(k k) string { return ui.Number(k.GetPrimaryVersion()) }},
		{Title: "latest", Detail: true, Value: func(k k) string { return ui.Number(k.GetLatestVersion()) }},
		{Title: "rotation", Detail: true, Value: func(k k) string { return rotationText(k.GetRotation()) }},
		{Title: "next rotation", Detail: true, Value: func(k k) string { return ui.Time(k.GetNextRotationTime()) }},
		{Title: "labels", Value: func(k k) string { return ui.Pairs(k.GetLabels()) }},
		{Title: "created", Value: func(k k) string { return ui.Time(k.GetCreateTime()) }},
		{Title: "updated", Detail: true, Value: func(k k) string { return ui.Time(k.GetUpdateTime()) }},
		{Title: "destruction", Detail: true, Value: func(k k) string { return ui.Time(k.GetDestroyTime()) }},
		{Title: "erased", Detail: true, Value: func(k k) string { return ui.Time(k.GetEraseTime()) }},
	}
}

// restoringText says what a restore from a backup that is under way, or was cut short,
// has left to do.
func restoringText(k *keywrightv1.Key) string {
	oldest := k.GetVault().GetOldestRestoredVersion()
	if oldest == 0 {
		return ""
	}
	return "versions below " + ui.Number(oldest) + " are still to come; if no restore is under way, restore from the same backup again"
}

func rotationText(r *keywrightv1.RotationPolicy) string {
	var parts []string
	if period := r.GetPeriod().AsDuration(); period > 0 {
		parts = append(parts, "every "+daysOr(period))
	}
	if r.GetMaxUses() > 0 {
		parts = append(parts, "after "+strconv.FormatUint(r.GetMaxUses(), 10)+" uses")
	}
	return strings.Join(parts, ", ")
}

func daysOr(d time.Duration) string {
	if day := 24 * time.Hour; d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return d.String()
}
