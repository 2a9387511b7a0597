package config

import (
	"fmt"

	"github.com/keywright/keywright/server"
)

// DefaultVaultAddress is where Vault's API is served if the section names no address.
const DefaultVaultAddress = "127.0.0.1:8200"

// Vault configures the API of HashiCorp Vault and OpenBao. Without the section it is off.
type Vault struct {
	Address         string       `yaml:"address"` // host:port; empty: DefaultVaultAddress
	Mounts          []VaultMount `yaml:"mounts"`
	LenientBatches  bool         `yaml:"lenient_batches"`
	CreateOnEncrypt bool         `yaml:"create_on_encrypt"`
	MaxBodyBytes    Bytes        `yaml:"max_body_bytes"` // 0: 32 MiB
}

// VaultMount maps a mount to a namespace.
type VaultMount struct {
	Path           string `yaml:"path"`
	VaultNamespace string `yaml:"vault_namespace"`
	Namespace      string `yaml:"namespace"`
}

// address is where to listen; empty where the section is missing.
func (v *Vault) address() string {
	switch {
	case v == nil:
		return ""
	case v.Address == "":
		return DefaultVaultAddress
	}
	return v.Address
}

func (v *Vault) check(p *problems) {
	if v == nil {
		return
	}
	for i, m := range v.Mounts {
		p.require(m.Namespace != "", fmt.Sprintf("vault.mounts[%d].namespace", i), "is missing: name the namespace that the mount is")
	}
	err := v.Of().Check()
	p.require(err == nil, "vault.mounts", "%v", err)
	p.require(v.MaxBodyBytes == 0 || v.MaxBodyBytes >= minVaultBody && v.MaxBodyBytes <= maxVaultBody, "vault.max_body_bytes",
		"is %d: use %d to %d, or leave it out", v.MaxBodyBytes, minVaultBody, maxVaultBody)
}

// Bounds of vault.max_body_bytes.
const (
	minVaultBody = 64 << 10
	maxVaultBody = 256 << 20
)

// Of is what the server makes of the section.
func (v *Vault) Of() server.Vault {
	if v == nil {
		return server.Vault{}
	}
	c := server.Vault{Address: v.address(), LenientBatches: v.LenientBatches, CreateOnEncrypt: v.CreateOnEncrypt, MaxBodyBytes: int(v.MaxBodyBytes)}
	for _, m := range v.Mounts {
		c.Mounts = append(c.Mounts, server.VaultMount{Path: m.Path, VaultNamespace: m.VaultNamespace, Namespace: m.Namespace})
	}
	return c
}
