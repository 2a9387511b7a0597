//go:build !linux

package badger

import "errors"

// exchange is offered by Linux only.
func exchange(string, string) error {
	return errors.New("this operating system cannot swap two directories atomically; compact the store on Linux")
}
