package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
)

func newCheckConfigCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration and the files that it names, changing nothing",
		Long: `Check the configuration and the files that it names: the PKCS#11 module, the
source of the PIN, certificates and CA bundles. Nothing is opened, no PIN is tried
and nothing is changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(a.configPath)
			if err != nil {
				return err
			}
			if problems := checkFiles(c); len(problems) > 0 {
				return &config.Invalid{Path: a.configPath, Problems: problems}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid.\n", a.configPath)
			return nil
		},
	}
}

// checkFiles says what is wrong with the files that a configuration names.
func checkFiles(c *config.Config) (problems []string) {
	note := func(field string, err error) {
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", field, err))
		}
	}
	note("hsm.module", regular(c.HSM.Module))
	note("hsm.pin", checkPIN(c.HSM.PIN))
	for i, t := range c.HSM.Tokens {
		note(fmt.Sprintf("hsm.tokens[%d].module", i), regular(c.HSM.Of(t).Module))
		note(fmt.Sprintf("hsm.tokens[%d].pin", i), checkPIN(c.HSM.Of(t).PIN))
	}
	if !c.LocalCA() {
		_, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		note("tls.cert_file", err)
	}
	for i, bundle := range c.TLS.ClientCAs {
		note(fmt.Sprintf("tls.client_cas[%d].file", i), checkBundle(bundle.File))
	}
	if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		note("data_dir", fmt.Errorf("%s is not a directory", c.DataDir))
	}
	return problems
}

func regular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrInvalid}
	}
	return err
}

// checkPIN looks at where the PIN comes from, not at the PIN.
func checkPIN(p config.PIN) error {
	switch {
	case p.Env != "":
		if os.Getenv(p.Env) == "" {
			return fmt.Errorf("the variable %s is not set here", p.Env)
		}
	case p.File != "":
		info, err := os.Stat(p.File)
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
			return fmt.Errorf("%s can be read by everybody (mode %v): chmod 600 it", p.File, info.Mode().Perm())
		}
	}
	return nil
}

func checkBundle(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return nil
}
