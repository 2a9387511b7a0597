package client

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// profile is the file that says where a server is and as whom to call it;
// `keywrightd init` writes one. Relative paths are seen from the file's folder.
type profile struct {
	Addr      string `yaml:"addr"`
	CAFile    string `yaml:"ca_file"`
	CertFile  string `yaml:"cert_file"`
	KeyFile   string `yaml:"key_file"`
	TokenFile string `yaml:"token_file"`
}

func readProfile(path string) (Settings, error) {
	file, err := os.Open(path)
	if err != nil {
		return Settings{}, fmt.Errorf("%w: the profile: %w", ErrSettings, err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	p, err := parseProfile(file)
	if err != nil {
		return Settings{}, fmt.Errorf("%w: the profile %s: %w", ErrSettings, path, err)
	}
	seen := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(path), name)
	}
	return Settings{
		Addr: p.Addr, CAFile: seen(p.CAFile), CertFile: seen(p.CertFile), KeyFile: seen(p.KeyFile), TokenFile: seen(p.TokenFile),
	}, nil
}

// parseProfile reads one strict YAML document; an empty one is an empty profile.
func parseProfile(r io.Reader) (p profile, err error) {
	decoder := yaml.NewDecoder(r)
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return profile{}, err
	}
	if err := decoder.Decode(new(profile)); !errors.Is(err, io.EOF) {
		return profile{}, errors.New("there must be one YAML document and nothing after it")
	}
	return p, nil
}
