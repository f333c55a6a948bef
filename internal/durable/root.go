package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteIn is WriteFile for a file directly in the folder dir, which is already
// open: nothing that happens to the folder's path meanwhile can lead the write
// elsewhere. name must not hold a slash.
func WriteIn(dir *os.Root, name string, data []byte, opts Options) (err error) {
	path := filepath.Join(dir.Name(), name)
	temp := TempPrefix + rand.Text()
	// Nobody else may read it before it has its owner and mode.
	f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create a temporary file beside %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(dir.Remove(temp)))
		}
	}()
	if err := fill(f, data, opts); err != nil {
		return errors.Join(fmt.Errorf("cannot write %s: %w", path, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := dir.Rename(temp, name); err != nil {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return SyncRoot(dir)
}

// RemoveIn is Remove for a file directly in the open folder dir.
func RemoveIn(dir *os.Root, name string) error {
	err := dir.Remove(name)
	if err != nil && ignoreNotExist(err) == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return SyncRoot(dir)
}

// SyncRoot is SyncDir for an open folder.
func SyncRoot(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir.Name(), err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("cannot sync %s: %w", dir.Name(), err), d.Close())
	}
	return d.Close()
}
