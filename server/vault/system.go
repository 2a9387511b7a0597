package vault

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/vault/internal/engine"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// compatible is the version of OpenBao that the surface is modelled on, which clients read.
const compatible = "2.6.0+keywright"

// systemQuery is a request of sys or auth.
type systemQuery struct {
	call           kms.Call
	method         string
	below          string // of the path, below the row's
	vaultNamespace string
	fields         wire.Fields
	arrival        gate.Arrival
}

type systemHandler func(context.Context, *systemQuery) (*wire.Answer, error)

// systemRows are the paths of sys and auth that need authentication.
func (h *Handler) systemRows() map[string]*gate.Unary[systemQuery, wire.Answer] {
	rows := map[string]*gate.Unary[systemQuery, wire.Answer]{}
	for path, row := range map[string]struct {
		name, methods string
		serve         systemHandler
	}{
		"auth/token/lookup-self":   {"VaultLookupSelf", "GET PUT", h.lookupSelf},
		"auth/token/lookup":        {"VaultLookup", "PUT", h.lookup},
		"auth/token/renew-self":    {"VaultRenewSelf", "PUT", h.renewSelf},
		"auth/token/renew":         {"VaultRenew", "PUT", h.renew},
		"auth/token/revoke-self":   {"VaultRevokeSelf", "PUT", h.revokeSelf},
		"auth/token/revoke":        {"VaultRevoke", "PUT", h.revoke},
		"auth/token/create":        {"VaultCreateToken", "PUT", h.createToken},
		"auth/cert/login":          {"VaultCertificateLogin", "PUT", h.certificateLogin},
		"sys/mounts":               {"VaultMounts", "GET", h.listMounts},
		"sys/internal/ui/mounts":   {"VaultMount", "GET", h.internalMounts},
		"sys/internal/ui/mounts/*": {"VaultMount", "GET", h.internalMount},
		"sys/capabilities-self":    {"VaultCapabilities", "PUT", h.capabilitiesSelf},
	} {
		rows[path] = gate.Row(h.gate, row.name, func(ctx context.Context, call kms.Call, q *systemQuery) (*wire.Answer, error) {
			if !strings.Contains(row.methods, q.method) {
				return nil, errMethod()
			}
			q.call = call
			return row.serve(ctx, q)
		})
	}
	return rows
}

// systemRow finds the row of a path of sys or auth.
func (h *Handler) systemRow(path string) (row *gate.Unary[systemQuery, wire.Answer], below string) {
	path = strings.TrimSuffix(path, "/")
	if below, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		return h.system["sys/internal/ui/mounts/*"], below
	}
	return h.system[path], ""
}

func (h *Handler) serveSystem(req *http.Request, a gate.Arrival, x *exchange, row *gate.Unary[systemQuery, wire.Answer], method, below string) (*wire.Answer, error) {
	if err := x.request.Read(x.body, false); err != nil {
		return nil, err
	}
	q := &systemQuery{method: method, below: below, fields: x.request.Fields, arrival: a,
		vaultNamespace: strings.Trim(req.Header.Get("X-Vault-Namespace"), "/")}
	return row.Serve(req.Context(), a, q, nil)
}

// open serves what needs no authentication; nil: it is not such.
func (h *Handler) open(method, path string, req *http.Request) *wire.Answer {
	path = strings.TrimSuffix(path, "/")
	if method == engine.Put && isLogin(path) {
		return &wire.Answer{Status: http.StatusBadRequest, Bare: map[string]any{"errors": []string{
			"this server has no such login: use one of its own tokens, or a client certificate"}}}
	}
	if method != engine.Get {
		return nil
	}
	switch path {
	case "sys/health":
		return h.health(req)
	case "sys/seal-status":
		return &wire.Answer{Bare: h.sealStatus(req.Context())}
	case "sys/leader":
		return &wire.Answer{Bare: map[string]any{"ha_enabled": false, "is_self": false, "leader_address": "", "leader_cluster_address": ""}}
	}
	return nil
}

// isLogin tells the logins of the original that Keywright's authentication has not.
func isLogin(path string) bool {
	method, ok := strings.CutPrefix(path, "auth/")
	if !ok {
		return false
	}
	switch method {
	case "approle/login", "jwt/login", "kubernetes/login", "oidc/login", "ldap/login", "userpass/login":
		return true
	}
	return strings.HasPrefix(method, "userpass/login/") || strings.HasPrefix(method, "ldap/login/")
}

// health answers as the original does, with the statuses that the query asks for.
func (h *Handler) health(req *http.Request) *wire.Answer {
	status := h.service.Health(req.Context())
	sealed := !status.Sealed.IsZero()
	code, name := http.StatusOK, "activecode"
	if sealed || status.StoreProblem != "" || status.AuditProblem != "" || h.gate.Draining() {
		code, name = http.StatusServiceUnavailable, "sealedcode"
	}
	if given, err := strconv.Atoi(req.URL.Query().Get(name)); err == nil && given >= 200 && given <= 599 {
		code = given
	}
	return &wire.Answer{Status: code, Bare: map[string]any{
		"initialized": true, "sealed": sealed, "standby": false, "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
		"server_time_utc": h.clock().Unix(), "version": compatible,
		"cluster_name": "keywright", "cluster_id": status.InstallationID}}
}

func (h *Handler) sealStatus(ctx context.Context) map[string]any {
	status := h.service.Health(ctx)
	return map[string]any{"type": "pkcs11", "initialized": true, "sealed": !status.Sealed.IsZero(), "t": 1, "n": 1, "progress": 0, "nonce": "",
		"version": compatible, "build_date": "", "migration": false, "cluster_name": "keywright", "cluster_id": status.InstallationID,
		"recovery_seal": true, "storage_type": status.StoreName}
}

// mountData is what the original tells of a mount.
func (h *Handler) mountData(path string) map[string]any {
	return map[string]any{"type": "transit", "path": path, "description": "", "accessor": "transit_" + strings.ReplaceAll(strings.TrimSuffix(path, "/"), "/", "_"),
		"local": false, "seal_wrap": false, "external_entropy_access": false, "options": nil, "uuid": "", "plugin_version": "",
		"running_plugin_version": compatible, "running_sha256": "", "deprecation_status": "supported",
		"config": map[string]any{"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false}}
}

// listMounts lists what the caller may list namespaces for: all of them.
func (h *Handler) listMounts(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	all, err := h.allMounts(ctx, q)
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: all}, nil
}

func (h *Handler) allMounts(ctx context.Context, q *systemQuery) (map[string]any, error) {
	all := map[string]any{}
	for page := ""; ; {
		namespaces, next, err := h.service.ListNamespaces(ctx, q.call, kms.ListRequest{PageSize: 1000, PageToken: page})
		if err != nil {
			return nil, err
		}
		for _, n := range namespaces {
			all[n.Name+"/"] = h.mountData(n.Name + "/")
		}
		if page = next; page == "" {
			break
		}
	}
	for _, m := range h.mounts {
		if m.VaultNamespace == q.vaultNamespace {
			all[m.Path+"/"] = h.mountData(m.Path + "/")
		}
	}
	return all, nil
}

func (h *Handler) internalMounts(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	all, err := h.allMounts(ctx, q)
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: map[string]any{"secret": all, "auth": map[string]any{}}}, nil
}

// internalMount tells which mount a path is of. Clients ask before they know whether they
// may use it, so anybody who is authenticated is told how the path is read, not whether
// there is such a namespace.
func (h *Handler) internalMount(_ context.Context, q *systemQuery) (*wire.Answer, error) {
	mount, _ := h.mounts.of(q.vaultNamespace, q.below)
	if mount == "" {
		return nil, &kms.Error{Code: kms.PermissionDenied, Reason: reasonNoRoute, Message: "no such mount"}
	}
	return &wire.Answer{Data: h.mountData(mount)}, nil
}

func seconds(d time.Duration) int64 { return int64(max(d, 0) / time.Second) }
