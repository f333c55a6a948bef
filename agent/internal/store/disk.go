package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/internal/durable"
)

// makeFolder makes a folder and its parents, if they aren't there, whatever the
// umask is.
func makeFolder(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(filepath.Dir(dir), mode); err != nil {
			return err
		}
		err = os.Mkdir(dir, mode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// syncDir makes the entries of a folder durable.
func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// exchange swaps two folders in one step, where the file system can.
func exchange(root *os.Root, a, b string) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	fd := int(dir.Fd())
	err = unix.Renameat2(fd, a, fd, b, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if err := root.Rename(b, a+".old"); err != nil {
		return err
	}
	return root.Rename(a, b)
}

// readRegular reads a regular file of at most limit bytes.
func readRegular(root *os.Root, file string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK a named pipe that somebody put there would hold us up.
	f, err := root.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", file, limit)
	}
	return data, err
}

// A bench is a folder of its own in staging. Its lock says that somebody is
// at work there; it falls with the process.
type bench struct {
	root *os.Root // of the store
	lock *os.File
	name string // relative to root
}

// newBench makes one. The caller closes it.
func newBench(root *os.Root, label string) (*bench, error) {
	// Who cleans up must not come between the folder and its lock.
	door, err := lockFolder(root, staging, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = door.Close() }()
	for try := 0; ; try++ {
		name := path.Join(staging, fmt.Sprintf("%s.%d.%d", label, os.Getpid(), try))
		err := root.Mkdir(name, 0o700)
		if errors.Is(err, fs.ErrExist) && try < 10_000 {
			continue
		}
		if err != nil {
			return nil, err
		}
		lock, err := lockFolder(root, name, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			return nil, errors.Join(err, root.RemoveAll(name))
		}
		return &bench{root: root, lock: lock, name: name}, nil
	}
}

// lockFolder opens a folder and locks it, until it is closed.
func lockFolder(root *os.Root, name string, how int) (*os.File, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
	}
}

func (b *bench) path(name string) string { return path.Join(b.name, name) }

// close removes the bench and what is left on it.
func (b *bench) close() error {
	return errors.Join(b.root.RemoveAll(b.name), b.lock.Close())
}

// clean removes the benches that nobody works at.
func (s *Store) clean() error {
	root, err := os.OpenRoot(s.options.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskError("", "cannot open the package folder", err)
	}
	defer func() { _ = root.Close() }()
	if err := removeIdle(root); err != nil {
		return diskError("", "cannot clean up staging", err)
	}
	return nil
}

// removeIdle removes what is in staging and not locked.
func removeIdle(root *os.Root) error {
	door, err := lockFolder(root, staging, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), staging)
	var idle []*bench
	for _, e := range entries {
		name := path.Join(staging, e.Name())
		lock, lockErr := lockFolder(root, name, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case lockErr == nil:
			idle = append(idle, &bench{root: root, lock: lock, name: name})
		case !errors.Is(lockErr, unix.EWOULDBLOCK) && !errors.Is(lockErr, fs.ErrNotExist):
			err = errors.Join(err, lockErr)
		}
	}
	// Removing takes its time; nobody needs to wait for it.
	errs := []error{err, door.Close()}
	for _, b := range idle {
		errs = append(errs, b.close())
	}
	return errors.Join(errs...)
}
