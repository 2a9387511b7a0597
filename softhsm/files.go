package softhsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("softhsm: %w", err)
	}
	return true, nil
}

// empty tells whether dir has no entry, or is none.
func empty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil || len(entries) == 0
}

// writeFile replaces path with content, in one step and on disk, readable by
// its owner alone.
func writeFile(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("softhsm: write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails once renamed, which is right
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("softhsm: write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("softhsm: write %s: %w", path, err)
	}
	return syncPath(filepath.Dir(path))
}

// syncTree brings every file and directory below root to disk; SoftHSM2 itself
// does not.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("softhsm: sync %s: %w", path, err)
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("softhsm: sync %s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("softhsm: sync %s: %w", path, err)
	}
	return nil
}
