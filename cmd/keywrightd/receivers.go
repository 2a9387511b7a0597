package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/pki"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/publish"
)

// receivers makes what the configuration says checkpoints are sent to.
func receivers(c *config.Config) ([]kms.Receiver, error) {
	var all []kms.Receiver
	for i, r := range c.Audit.Receivers {
		publisher, err := publisherOf(c, r)
		if err != nil {
			return nil, &config.Invalid{Problems: []string{fmt.Sprintf("audit.receivers[%d]: %v", i, err)}}
		}
		all = append(all, kms.Receiver{Publisher: publisher, Interval: time.Duration(r.Interval)})
	}
	return all, nil
}

func publisherOf(c *config.Config, r config.Receiver) (publish.Publisher, error) {
	switch {
	case r.File != "":
		return publish.File{Path: r.File}, nil
	case len(r.Command) > 0:
		return publish.Command{Argv: r.Command}, nil
	}
	key, err := checkpoint.ParseKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return publish.NewWitness(publish.WitnessOptions{URL: r.Witness, Key: key, Cosigned: keepCosigned(c, key)})
}

// keepCosigned keeps the last checkpoint that a witness cosigned beside the log,
// for whoever verifies.
func keepCosigned(c *config.Config, key checkpoint.Key) func([]byte, uint64) {
	path := filepath.Join(c.AuditDir(), fmt.Sprintf("checkpoint.%08x", key.KeyHash()))
	return func(signed []byte, _ uint64) {
		// Beside the log it is a convenience: the witness itself has what counts.
		_ = pki.WriteFile(path, signed)
	}
}
