package vault

import (
	"context"
	"slices"
	"strings"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// capabilitiesSelf tells what the caller may do on paths. It takes the right to explain
// decisions, as asking what would be decided does everywhere.
func (h *Handler) capabilitiesSelf(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	r := wire.Reader{Fields: q.fields}
	paths := append(wire.Get(&r, "paths", r.Texts), wire.Get(&r, "path", r.Texts)...)
	if r.Err != nil {
		return nil, r.Err
	}
	if len(paths) == 0 {
		return nil, wire.Invalid("paths", "is missing; give the paths to tell the capabilities on")
	}
	if len(paths) > 100 {
		return nil, wire.Invalid("paths", "has %d entries, the limit is 100", len(paths))
	}
	data, all := map[string]any{}, []string{}
	for _, path := range paths {
		found, err := h.capabilities(ctx, q, path)
		if err != nil {
			return nil, err
		}
		data[path], all = found, found
	}
	data["capabilities"] = all // of the last path, as the original has it for a single one
	return &wire.Answer{Data: data}, nil
}

// onPath are the actions that a path's first segment stands for, by capability.
var onPath = map[string]map[string]policy.Action{
	"encrypt": {"update": policy.Encrypt}, "decrypt": {"update": policy.Decrypt}, "rewrap": {"update": policy.Decrypt},
	"datakey": {"update": policy.GenerateDataKey}, "sign": {"update": policy.Sign}, "verify": {"update": policy.Verify},
	"hmac": {"update": policy.GenerateMac}, "random": {"update": policy.GenerateRandom},
	"export": {"read": policy.ExportKey}, "backup": {"read": policy.ExportKey}, "restore": {"update": policy.ImportKey},
	"keys": {"create": policy.CreateKey, "read": policy.GetKey, "update": policy.UpdateKey, "delete": policy.DeleteKey, "list": policy.ListKeys},
}

func (h *Handler) capabilities(ctx context.Context, q *systemQuery, path string) ([]string, error) {
	namespace, below, ok := h.mounts.find(q.vaultNamespace, strings.TrimPrefix(path, "/"))
	if !ok {
		return []string{"deny"}, nil
	}
	segments := strings.Split(below, "/")
	key := ""
	if len(segments) > 1 {
		key = segments[len(segments)-1]
		if segments[0] == "keys" || segments[0] == "sign" || segments[0] == "hmac" || segments[0] == "verify" {
			key = segments[1]
		}
	}
	found := []string{}
	for capability, action := range onPath[segments[0]] {
		allowed, err := h.allowed(ctx, q, action, namespace, key)
		if err != nil {
			return nil, err
		}
		if allowed {
			found = append(found, capability)
		}
	}
	if len(found) == 0 {
		found = append(found, "deny")
	}
	slices.Sort(found)
	return found, nil
}

func (h *Handler) allowed(ctx context.Context, q *systemQuery, action policy.Action, namespace, key string) (bool, error) {
	caller := q.call.Caller
	supposed := kms.SupposedRequest{Principal: caller.Principal(), Groups: caller.Groups, Action: string(action), Namespace: namespace, Key: key, Method: caller.Method}
	if caller.Source.IsValid() {
		supposed.Source = caller.Source.String()
	}
	explained, err := h.service.ExplainDecision(ctx, q.call, kms.ExplainRequest{Supposed: &supposed})
	if err != nil {
		return false, err
	}
	return explained.Explanation.Verdict == policy.Allow, nil
}
