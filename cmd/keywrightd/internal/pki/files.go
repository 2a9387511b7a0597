package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Pair is a certificate and its private key, in PEM. It prints as [redacted].
type Pair struct {
	secret
	certificate, key []byte
}

// Write replaces both files, each in one step, the key first: a server that reads
// a new key beside the old certificate sees that they do not belong together, and
// reads again.
func (p Pair) Write(certificatePath, keyPath string) error {
	if err := WriteFile(keyPath, p.key); err != nil {
		return err
	}
	return WriteFile(certificatePath, p.certificate)
}

// WriteFile replaces a file in one step, on disk when it returns, mode 0600.
func WriteFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails once renamed, which is right
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// ReadCertificate reads the first certificate of a PEM file.
func ReadCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != certificateBlock {
		return nil, fmt.Errorf("read certificate: %s holds none in PEM", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", path, err)
	}
	return certificate, nil
}

// Hosts returns the host names and IP addresses that a certificate is for.
func Hosts(certificate *x509.Certificate) []string {
	hosts := append([]string(nil), certificate.DNSNames...)
	for _, ip := range certificate.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}
