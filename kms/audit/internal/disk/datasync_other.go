//go:build !linux

package disk

import "os"

// Datasync puts a file's bytes on disk.
func Datasync(file *os.File) error { return file.Sync() }
