package manage

import (
	"context"
	"strings"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// showTokenKey shows a key of protection level HSM, with what the token says of its
// primary version.
func (a app) showTokenKey(ctx context.Context, c *client.Client, key *keywrightv1.Key) error {
	primary, err := c.GetVersion(ctx, &keywrightv1.GetVersionRequest{Namespace: key.GetNamespace(), Key: "id:" + key.GetId()})
	if err != nil {
		return err
	}
	columns := append(keyColumns(),
		ui.Column[*keywrightv1.Key]{Title: "token key", Value: func(*keywrightv1.Key) string { return primary.GetTokenKey().GetId() }},
		ui.Column[*keywrightv1.Key]{Title: "origin", Value: func(*keywrightv1.Key) string { return originText(primary.GetTokenKey()) }})
	return command.Describe(a.App, columns, key)
}

// originText says in the token's own terms where a key comes from.
func originText(k *keywrightv1.TokenKey) string {
	switch {
	case k == nil:
		return ""
	case k.GetRemoving():
		return "still on the token, removed as soon as that answers"
	case k.GetProblem() != "":
		return "unknown: " + k.GetProblem()
	}
	say := func(is bool, attribute string) string {
		if is {
			return attribute
		}
		return "not " + attribute
	}
	return strings.Join([]string{say(k.GetLocal(), "LOCAL"), say(k.GetNeverExtractable(), "NEVER_EXTRACTABLE"), say(k.GetAlwaysSensitive(), "ALWAYS_SENSITIVE")}, ", ")
}
