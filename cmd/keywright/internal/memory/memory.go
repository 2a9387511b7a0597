// Package memory remembers the last checkpoint of a server's audit log that this
// user has seen, and the key that signed it. A later checkpoint must continue it:
// so who controls the server cannot show another past to someone who was there.
//
// A Memory is two small files in the user's state directory. It holds no lock:
// of two programs that remember at the same time the later one wins, and both
// have checked.
package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keywright/keywright/kms/audit/checkpoint"
)

// EnvStateDir is the environment variable of the directory that memories are in.
const EnvStateDir = "KEYWRIGHT_STATE_DIR"

// ErrAlarm is what errors.Is finds when a log does not continue the one that was
// seen before.
var ErrAlarm = errors.New("AUDIT LOG ALARM")

// Memory is what is remembered of one server.
type Memory struct {
	checkpoint, key string // paths
}

// Open returns the memory of a server, which has an id that is fit for a file's
// name; nil if the user has no place for it.
func Open(getenv func(string) string, id string) *Memory {
	dir := getenv(EnvStateDir)
	if base := getenv("XDG_STATE_HOME"); dir == "" && base != "" {
		dir = filepath.Join(base, "keywright")
	}
	if home := getenv("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".local", "state", "keywright")
	}
	if dir == "" {
		return nil
	}
	return &Memory{filepath.Join(dir, id+".checkpoint"), filepath.Join(dir, id+".key")}
}

// seen is a checkpoint with its key.
type seen struct {
	checkpoint checkpoint.Checkpoint
	key        checkpoint.Key
}

// recall returns what is remembered, nil if nothing is.
func (m *Memory) recall() (*seen, error) {
	note, err := os.ReadFile(m.checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	vkey, keyErr := os.ReadFile(m.key)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	key, err := checkpoint.ParseKey(strings.TrimSpace(string(vkey)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.key, err)
	}
	c, err := checkpoint.Open(note, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.checkpoint, err)
	}
	return &seen{c, key}, nil
}

// KnownSize returns the size of the remembered checkpoint's log, 0 for none.
func (m *Memory) KnownSize() (uint64, error) {
	known, err := m.recall()
	if known == nil {
		return 0, err
	}
	return known.checkpoint.Size, nil
}

// Seen is a checkpoint that was verified.
type Seen struct {
	checkpoint.Checkpoint
	Key   checkpoint.Key // that signed it
	First bool           // nothing was remembered: the key is believed as it came
}

// Check verifies a checkpoint, with the log's keys, and that its log continues
// the remembered one; then it is remembered in its place. An error that is
// ErrAlarm says that the log was changed, put back, or exchanged; what was
// remembered stays then.
func (m *Memory) Check(note, keys []byte, consistency [][]byte) (Seen, error) {
	known, err := m.recall()
	if err != nil {
		return Seen{}, err
	}
	succession, err := checkpoint.ParseSuccession(keys)
	if err != nil {
		return Seen{}, m.alarm("the log's keys are not sound: %v", err)
	}
	trusted := succession.Current() // as it came, the first time
	if known != nil {
		trusted = known.key
	}
	spans, breaks, err := succession.Trusted(trusted)
	if known == nil {
		first, _, firstErr := succession.Trusted(succession.First())
		spans, err = append(first, spans...), errors.Join(err, firstErr)
	}
	if err != nil {
		return Seen{}, m.alarm("the log's keys are not those of the log that was seen before: %v", err)
	}
	c, err := checkpoint.OpenTrusted(note, spans)
	if err != nil && len(breaks) > 0 {
		return Seen{}, m.alarm("the audit key was replaced without the signature of the one before, from entry %d on: %q",
			breaks[0].From, breaks[0].Reason)
	}
	if err != nil {
		return Seen{}, m.alarm("the checkpoint is not signed by the log's key: %v", err)
	}
	if known != nil {
		if err := m.continues(known.checkpoint, c, consistency); err != nil {
			return Seen{}, err
		}
	}
	signer := succession.Current()
	for _, span := range spans {
		if _, err := checkpoint.Open(note, span.Key); err == nil {
			signer = span.Key
		}
	}
	return Seen{c, signer, known == nil}, m.remember(note, signer)
}

// continues verifies the consistency proof.
func (m *Memory) continues(old, c checkpoint.Checkpoint, consistency [][]byte) error {
	if c.Origin == old.Origin && c.Size < old.Size {
		return m.Shorter(old.Size)
	}
	proof := make([][32]byte, len(consistency))
	for i, hash := range consistency {
		if len(hash) != len(proof[i]) {
			return m.alarm("the proof that the log continues is malformed")
		}
		proof[i] = [32]byte(hash)
	}
	err := c.Continues(old, proof)
	switch {
	case errors.Is(err, checkpoint.ErrOrigin):
		return m.alarm("this is the log of %s, the one seen before was that of %s", c.Origin, old.Origin)
	case err != nil:
		return m.alarm("the first %d entries are not those that were seen before", old.Size)
	}
	return nil
}

// Shorter is the alarm for a log that has fewer entries than the known ones.
func (m *Memory) Shorter(known uint64) error {
	return m.alarm("the log has fewer than the %d entries that were seen before: it was put back to an older state, or its end was cut off", known)
}

func (m *Memory) alarm(format string, args ...any) error {
	return fmt.Errorf("%w: %s. What was seen before is kept: compare the log's files with keywright audit verify DIR --checkpoint %s. If you know why, and it is right, remove %[3]s and %[4]s",
		ErrAlarm, fmt.Sprintf(format, args...), m.checkpoint, m.key)
}

// remember writes the key first: with a key and no checkpoint nothing is remembered.
func (m *Memory) remember(note []byte, key checkpoint.Key) error {
	if err := os.MkdirAll(filepath.Dir(m.checkpoint), 0o700); err != nil {
		return err
	}
	return errors.Join(replace(m.key, []byte(key.String()+"\n")), replace(m.checkpoint, note))
}

// replace leaves the old content or the new, never a part.
func replace(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
