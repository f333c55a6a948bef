// Package private reads the files that decide who can sign, and refuses those
// that somebody else could have read, or put there.
//
// A secret (a key, a token, a PIN) must belong to this user and be closed to all
// others. What is trusted but not secret (public keys, a list of keys) may be read by
// all, and must belong to this user or to root. The folder of either must not be
// writable by others, or its files could be exchanged. Whoever may write to a folder further
// up is not looked for.
package private

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MaxFile is the most bytes that a file may have.
const MaxFile = 64 << 10

const (
	writable = 0o022
	open     = 0o077
)

// Secret reads a secret file. what names it in errors: "key", "token file".
func Secret(what, path string) ([]byte, error) {
	return read(what, path, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&open != 0 {
			return fmt.Errorf("cannot use %s %s: its mode is %04o, so others can use it; run \"chmod 600 %s\"", what, path, mode, path)
		}
		if uid, ok := owner(info); ok && uid != os.Geteuid() {
			return fmt.Errorf("cannot use %s %s: it belongs to uid %d, and this is uid %d", what, path, uid, os.Geteuid())
		}
		return nil
	})
}

// Trusted reads a file that is no secret, but that others must not write.
func Trusted(what, path string) ([]byte, error) {
	return read(what, path, func(info fs.FileInfo) error { return closed(what, path, info) })
}

// Executable looks at a file that is going to be run as code. It isn't read.
func Executable(what, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", what, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("cannot use %s %s: it is not a regular file", what, path)
	}
	if err := closed(what, path, info); err != nil {
		return err
	}
	return folders(what, path)
}

// Folder looks at a folder of such files.
func Folder(what, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", what, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use %s %s: it is not a folder", what, path)
	}
	return closed(what, path, info)
}

// closed refuses what others than this user and root can write.
func closed(what, path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&writable != 0 {
		return fmt.Errorf("cannot use %s %s: its mode is %04o, so others can write to it; run \"chmod go-w %s\"", what, path, mode, path)
	}
	if uid, ok := owner(info); ok && uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("cannot use %s %s: it belongs to uid %d, and this is uid %d", what, path, uid, os.Geteuid())
	}
	return nil
}

// folders looks at the folder that a file is named in and, past symbolic links, at the
// one that it is in.
func folders(what, path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", what, err)
	}
	for _, p := range []string{path, real} {
		if err := Folder("the folder of "+what+" "+filepath.Base(path)+",", filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// read judges the file that it opened, not the one that has the name a moment later.
func read(what, path string, check func(fs.FileInfo) error) ([]byte, error) {
	// A pipe without a writer would block the opening.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", what, path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot use %s %s: it is not a regular file", what, path)
	}
	if err := check(info); err != nil {
		return nil, err
	}
	if err := folders(what, path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", what, path, err)
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("cannot read %s %s: it has more than %d bytes", what, path, MaxFile)
	}
	return data, nil
}

func owner(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
