// Package durable writes files so that a reader, or a power cut, sees the old
// content or the new one and nothing between: write to a temporary file in the
// same folder, fsync it, rename, fsync the folder.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TempPrefix starts the name of every temporary file that WriteFile makes. After
// a crash one may be left; RemoveTemp removes them.
const TempPrefix = ".tmp-gpuaas-"

// Options of WriteFile.
type Options struct {
	Mode fs.FileMode
	// UID and GID are set when Chown is.
	Chown    bool
	UID, GID int
}

// WriteFile replaces the file at path with data, durably. Its folder must
// exist. It is safe for concurrent use; the last writer wins.
func WriteFile(path string, data []byte, opts Options) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return fmt.Errorf("cannot create a temporary file beside %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(f.Name())))
		}
	}()
	if err := fill(f, data, opts); err != nil {
		return errors.Join(fmt.Errorf("cannot write %s: %w", path, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return SyncDir(dir)
}

func fill(f *os.File, data []byte, opts Options) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	// Ownership first: chown clears set-id bits, and a file is never readable by
	// more than its final owner.
	if opts.Chown {
		if err := f.Chown(opts.UID, opts.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(opts.Mode); err != nil {
		return err
	}
	return f.Sync()
}

// SyncDir makes the entries of a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("cannot sync %s: %w", dir, err), d.Close())
	}
	return d.Close()
}

// Remove removes a file or symlink durably. A path that is not there is fine.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// RemoveTemp removes what crashed writers left in dir.
func RemoveTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreNotExist(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), TempPrefix) {
			if err := ignoreNotExist(os.Remove(filepath.Join(dir, e.Name()))); err != nil {
				return err
			}
		}
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
