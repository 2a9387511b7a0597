package manage

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/memory"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// watchLog fetches the newest checkpoint and demands that its log continues the
// one that was seen before. Who may not fetch checkpoints, and who has no place to
// remember them, is not kept from what he came for: seen is nil then.
func (a app) watchLog(ctx context.Context, c *client.Client) (seen *memory.Seen, note string, err error) {
	remembered := memory.Open(a.Getenv, c.ServerID)
	if remembered == nil {
		return nil, "", nil
	}
	size, err := remembered.KnownSize()
	if err != nil {
		return nil, "", err
	}
	response, err := c.GetCheckpoint(ctx, &keywrightv1.GetCheckpointRequest{KnownSize: size})
	if failed, ok := errors.AsType[*client.Error](err); ok {
		switch {
		case failed.Reason == "LOG_IS_SHORTER":
			return nil, "", remembered.Shorter(size)
		case failed.Code == codes.PermissionDenied || failed.Code == codes.Unimplemented:
			return nil, "", nil
		}
	}
	if err != nil {
		return nil, "", err
	}
	checked, err := remembered.Check([]byte(response.GetCheckpoint()), []byte(response.GetKeys()), response.GetConsistency())
	if err != nil {
		return nil, "", err
	}
	return &checked, response.GetCheckpoint(), nil
}

// watched is a command's action after watchLog.
func (a app) watched(do command.Action) command.Action {
	return func(ctx context.Context, c *client.Client, args []string) error {
		if _, _, err := a.watchLog(ctx, c); err != nil {
			return err
		}
		return do(ctx, c, args)
	}
}

const checkpointHelp = `Fetch the newest signed checkpoint of the audit log, and check that its log continues
the one that you saw last. Every command that reads the audit log does so, as does
status; what was seen is kept in $` + memory.EnvStateDir + `, else in
~/.local/state/keywright. The checkpoint is printed: keep it elsewhere, to verify
the log's files with it later, and the key that signed it (--key-out) likewise.

Seen for the first time, the key is believed as it came: compare it with the one
that keywrightd init printed.`

// shownCheckpoint is a checkpoint as JSON.
type shownCheckpoint struct {
	Checkpoint string `json:"checkpoint"`
	Size       uint64 `json:"size,omitempty"` // entries
	Key        string `json:"key,omitempty"`
	First      bool   `json:"first,omitempty"` // nothing was seen before
}

func (a app) auditCheckpoint() *cobra.Command {
	var path, keyPath string
	cmd := &cobra.Command{Use: "checkpoint", Short: "Fetch and check the newest signed checkpoint", Long: checkpointHelp, Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			seen, note, err := a.watchLog(ctx, c)
			if err != nil {
				return err
			}
			if seen == nil { // not remembered, but still wanted
				response, err := c.GetCheckpoint(ctx, &keywrightv1.GetCheckpointRequest{})
				if err != nil {
					return err
				}
				note = response.GetCheckpoint()
			}
			if keyPath != "" {
				if err := writeKey(keyPath, seen); err != nil {
					return err
				}
			}
			return a.showCheckpoint(note, seen, path)
		})}
	cmd.Flags().StringVar(&path, "out", "", "file to write the checkpoint to, instead of printing it")
	cmd.Flags().StringVar(&keyPath, "key-out", "", "file to write the verifier key to that the checkpoint is signed with")
	return cmd
}

// writeKey writes the key of a checkpoint that was checked.
func writeKey(path string, seen *memory.Seen) error {
	if seen == nil {
		return command.Usagef("--key-out: no key was checked, since there is no place to remember what was seen; set %s", memory.EnvStateDir)
	}
	return ui.WriteFile(path, []byte(seen.Key.String()+"\n"))
}

// showCheckpoint writes or prints a checkpoint, and says what is known of it.
func (a app) showCheckpoint(note string, seen *memory.Seen, path string) error {
	switch {
	case path != "":
		if err := ui.WriteFile(path, []byte(note)); err != nil {
			return err
		}
	case a.JSON():
		shown := shownCheckpoint{Checkpoint: note}
		if seen != nil {
			shown.Size, shown.Key, shown.First = seen.Size, seen.Key.String(), seen.First
		}
		return ui.ValueJSON(a.Out, shown)
	default:
		if _, err := fmt.Fprint(a.Out, note); err != nil {
			return err
		}
	}
	if seen != nil {
		fmt.Fprintf(a.Err, "%d entries, signed by %s; %s\n", seen.Size, seen.Key, firstOrLater(seen.First))
	}
	return nil
}

func firstOrLater(first bool) string {
	if first {
		return "seen for the first time: compare the key with the one that keywrightd init printed"
	}
	return "it continues the log seen before"
}

const proveHelp = `Prove that an entry is in the audit log: print it, with a proof that leads from it to
the newest signed checkpoint (C2SP tlog-proof). Whoever has the proof and the log's
verifier key can check it with check-proof, without a server.`

func (a app) auditProve() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "prove SEQUENCE", Short: "Prove that an entry is in the signed log", Long: proveHelp, Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			sequence, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return command.Usagef("%q is no entry's sequence, which is a number", args[0])
			}
			seen, _, err := a.watchLog(ctx, c)
			if err != nil {
				return err
			}
			response, err := c.ProveEntry(ctx, &keywrightv1.ProveEntryRequest{Sequence: sequence})
			if err != nil {
				return err
			}
			return a.showProof(response, seen, path)
		})}
	cmd.Flags().StringVar(&path, "out", "", "file to write the proof to, with the entry in it")
	return cmd
}

// showProof checks a proof before it is shown or written.
func (a app) showProof(response *keywrightv1.ProveEntryResponse, seen *memory.Seen, path string) error {
	proof, err := checkpoint.ParseProof([]byte(response.GetProof()))
	if err != nil {
		return err
	}
	succession, err := checkpoint.ParseSuccession([]byte(response.GetKeys()))
	if err != nil {
		return err
	}
	trusted := succession.Current()
	if seen != nil {
		trusted = seen.Key
	}
	line := []byte(response.GetEntry().GetLine())
	proof.Extra = line
	if err := a.holds(proof, succession, trusted); err != nil {
		return err
	}
	if path != "" {
		if err := ui.WriteFile(path, proof.Text()); err != nil {
			return err
		}
	} else if a.JSON() {
		return ui.JSON(a.Out, response)
	}
	return a.printEntry(response.GetEntry())
}

// holds verifies a proof whose Extra is the line, and says so.
func (a app) holds(proof checkpoint.Proof, succession checkpoint.Succession, trusted checkpoint.Key) error {
	spans, _, err := succession.Trusted(trusted)
	if err != nil {
		return err
	}
	var keys []checkpoint.Key
	for _, span := range spans {
		keys = append(keys, span.Key)
	}
	return a.holdsUnder(proof, keys...)
}

func (a app) holdsUnder(proof checkpoint.Proof, keys ...checkpoint.Key) error {
	c, err := proof.Verify(proof.Extra, keys...)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Err, "entry %d is in the signed log of %d entries of %s\n", proof.Index, c.Size, c.Origin)
	return nil
}

const checkProofHelp = `Check a proof that prove wrote, without a server: that the entry in it is in the log
whose checkpoint the key signed. The entry is printed. The exit code is 1 if the
proof does not hold.`

func (a app) auditCheckProof() *cobra.Command {
	var vkey string
	cmd := &cobra.Command{Use: "check-proof FILE --key KEY", Short: "Check a proof that prove wrote, without a server", Long: checkProofHelp, Args: command.Arguments(1, 1),
		RunE: a.Local(func(ctx context.Context, args []string) error {
			if vkey == "" {
				return command.Usagef("say by --key which key of the log you trust; audit checkpoint --key-out writes it")
			}
			key, err := trustedKey(vkey)
			if err != nil {
				return err
			}
			proof, err := a.readProof(ctx, args[0])
			if err != nil {
				return err
			}
			if err := a.holdsUnder(proof, *key); err != nil {
				return err
			}
			return a.printEntry(&keywrightv1.AuditEntry{Sequence: proof.Index, Line: string(proof.Extra)})
		})}
	cmd.Flags().StringVar(&vkey, "key", "", "the key that signed the proof's checkpoint: name+id+base64, or a file that holds it")
	return cmd
}

func (a app) readProof(ctx context.Context, path string) (proof checkpoint.Proof, err error) {
	file, err := ui.Open(ctx, path, a.In, false)
	if err != nil {
		return proof, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := ui.ReadAll(file, checkpoint.MaxProof)
	if err != nil {
		return proof, err
	}
	if proof, err = checkpoint.ParseProof(text); err != nil {
		return proof, fmt.Errorf("%s is no proof: %w", path, err)
	}
	return proof, nil
}

const rotateKeyHelp = `Make a new audit key in the token, which signs the log's checkpoints from now on. The
old one vouches for it, and is removed from the token: who trusts the old one goes on
verifying with it, and need not be given the new one. A key that is lost is replaced
by keywrightd audit-key replace.`

func (a app) auditRotateKey() *cobra.Command {
	return &cobra.Command{Use: "rotate-key", Short: "Make a new audit key in the token; the old one vouches for it", Args: command.Arguments(0, 0),
		Long: rotateKeyHelp,
		RunE: a.Run(a.watched(func(ctx context.Context, c *client.Client, _ []string) error {
			response, err := c.RotateAuditKey(ctx, &keywrightv1.RotateAuditKeyRequest{IdempotencyKey: command.IdempotencyKey()})
			if err != nil {
				return err
			}
			type r = *keywrightv1.RotateAuditKeyResponse
			return command.Describe(a.App, []ui.Column[r]{
				{Title: "key", Value: r.GetKey},
				{Title: "from entry", Value: func(r r) string { return strconv.FormatUint(r.GetFromSize(), 10) }},
			}, response)
		}))}
}
