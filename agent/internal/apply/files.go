package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxOld is how much of a file that is replaced is read: it only matters
// whether it is what will be written, and what its digest was.
const maxOld = 16 << 20

func (r *run) writeFile(s host.Step, rec *Record) error {
	f := s.File
	opts, err := ownership(f)
	if err != nil {
		return err
	}
	dir, err := r.folder(f.Path, r.FileRoots, true)
	if err != nil {
		return err
	}
	defer closeRoot(dir)
	rec.Before, rec.After = digestIn(dir, filepath.Base(f.Path)), digestOf(f.Content)
	before, owned := r.inv.Files[f.Path]
	now := host.OwnedFile{Digest: rec.After, Mode: f.Mode, Owner: f.Owner, Group: f.Group}
	if err := r.update(func(inv *host.Inventory) { inv.Files[f.Path] = now }); err != nil {
		return err
	}
	if rec.Before == rec.After && hasMode(dir, filepath.Base(f.Path), opts) {
		return nil
	}
	if err := durable.WriteIn(dir, filepath.Base(f.Path), f.Content, opts); err != nil {
		// Nothing was made: what is there, if anything, is whose it was.
		return errors.Join(diskError(f.Path, err), r.update(func(inv *host.Inventory) {
			restore(inv.Files, f.Path, before, owned)
		}))
	}
	return nil
}

func (r *run) removeFile(s host.Step, rec *Record) error {
	path := nameOf(s)
	dir, err := r.folder(path, r.FileRoots, false)
	if err != nil {
		return err
	}
	if dir != nil {
		defer closeRoot(dir)
		rec.Before = digestIn(dir, filepath.Base(path))
		if err := removeIn(dir, filepath.Base(path)); err != nil {
			return err
		}
	}
	return r.update(func(inv *host.Inventory) { delete(inv.Files, path) })
}

// removeIn removes a file or link; a folder, even an empty one, is not the agent's.
func removeIn(dir *os.Root, name string) error {
	path := filepath.Join(dir.Name(), name)
	if info, err := dir.Lstat(name); err == nil && info.IsDir() {
		return &host.Error{Component: "apply", Reason: v1.ReasonConflict, Retry: true,
			Err: fmt.Errorf("cannot remove %s: a folder is in its place; move it away", path)}
	}
	if err := durable.RemoveIn(dir, name); err != nil {
		return diskError(path, err)
	}
	return nil
}

// folder opens the folder of path, which must be below one of roots, without
// following a symlink on the way from the root. With make it makes the folders
// that are missing, otherwise it returns nil where there are some.
func (r *run) folder(path string, roots []string, make bool) (*os.Root, error) {
	root, rel, err := rooted(path, roots)
	if err != nil {
		return nil, err
	}
	if make {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return nil, diskError(root, err)
		}
	}
	dir, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) && !make {
		return nil, nil
	}
	if err != nil {
		return nil, diskError(root, err)
	}
	for _, name := range strings.Split(filepath.Dir(rel), "/") {
		if name == "." {
			continue
		}
		next, err := enter(dir, name, make)
		if err != nil || next == nil {
			closeRoot(dir)
			return nil, err
		}
		closeRoot(dir)
		dir = next
	}
	return dir, nil
}

// rooted finds the root that path is below, the deepest of several.
func rooted(path string, roots []string) (root, rel string, err error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", "", &host.Error{Component: "apply", Reason: v1.ReasonGuard, Err: fmt.Errorf("%q is not an absolute, clean path", path)}
	}
	for _, candidate := range roots {
		below, ok := strings.CutPrefix(path, strings.TrimSuffix(candidate, "/")+"/")
		if ok && below != "" && len(candidate) > len(root) {
			root, rel = candidate, below
		}
	}
	if root == "" {
		return "", "", &host.Error{Component: "apply", Reason: v1.ReasonGuard,
			Err: fmt.Errorf("%s is below none of the folders that the agent may write to (%s)", path, strings.Join(roots, ", "))}
	}
	return root, rel, nil
}

// enter opens the folder name in dir.
func enter(dir *os.Root, name string, make bool) (*os.Root, error) {
	path := filepath.Join(dir.Name(), name)
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if !make {
			return nil, nil
		}
		if err := errors.Join(dir.Mkdir(name, 0o755), durable.SyncRoot(dir)); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, diskError(path, err)
		}
		info, err = dir.Lstat(name)
	}
	if err != nil {
		return nil, diskError(path, err)
	}
	if !info.IsDir() {
		kind := "not a folder"
		if info.Mode().Type() == fs.ModeSymlink {
			kind = "a symlink, which the agent does not follow"
		}
		return nil, &host.Error{Component: "apply", Reason: v1.ReasonConflict, Retry: true,
			Err: fmt.Errorf("%s is %s; make it a folder, or use another path", path, kind)}
	}
	next, err := dir.OpenRoot(name)
	if err != nil {
		return nil, diskError(path, err)
	}
	return next, nil
}

// closeRoot closes what was only used to find files: an error says nothing
// about what was written, which is synced before.
func closeRoot(dir *os.Root) { _ = dir.Close() }

// ownership finds the ids of a file's owner and group.
func ownership(f *task.File) (durable.Options, error) {
	opts := durable.Options{Mode: f.Mode}
	if f.Owner == "" && f.Group == "" {
		return opts, nil
	}
	opts.Chown, opts.UID, opts.GID = true, -1, -1
	var err error
	if f.Owner != "" {
		opts.UID, err = id("user", f.Owner, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
	}
	if f.Group != "" && err == nil {
		opts.GID, err = id("group", f.Group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	return opts, err
}

func id(kind, name string, lookup func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := lookup(name)
	if err != nil {
		return 0, &host.Error{Component: "apply", Reason: v1.ReasonNotWritable, Retry: true,
			Err: fmt.Errorf("there is no %s %q on this node; create it, or change the task", kind, name)}
	}
	return strconv.Atoi(text)
}

// hasMode reports whether a file's mode and owner are as wanted already.
func hasMode(dir *os.Root, name string, opts durable.Options) bool {
	info, err := dir.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Mode() != opts.Mode.Perm() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if opts.Chown && opts.UID >= 0 {
		uid = opts.UID
	}
	if opts.Chown && opts.GID >= 0 {
		gid = opts.GID
	}
	return int(stat.Uid) == uid && int(stat.Gid) == gid
}

// digestIn returns the digest of a regular file, "" for anything else.
func digestIn(dir *os.Root, name string) string {
	info, err := dir.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	if n, err := io.Copy(hash, io.LimitReader(f, maxOld+1)); err != nil || n > maxOld {
		return ""
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// diskError tells what kind of trouble a file system makes, and what to do.
func diskError(path string, err error) error {
	e := &host.Error{Component: "apply", Reason: v1.ReasonInternal, Retry: true, Err: err}
	is := func(codes ...syscall.Errno) bool {
		return slices.ContainsFunc(codes, func(c syscall.Errno) bool { return errors.Is(err, c) })
	}
	switch {
	case is(syscall.ENOSPC, syscall.EDQUOT):
		e.Reason, e.Err = v1.ReasonNoSpace, fmt.Errorf("%w; free space or inodes on the file system of %s", err, path)
	case is(syscall.EROFS):
		e.Reason, e.Err = v1.ReasonNotWritable, fmt.Errorf("%w; %s is on a read-only file system", err, path)
	case is(syscall.EACCES, syscall.EPERM):
		e.Reason, e.Err = v1.ReasonNotWritable, fmt.Errorf("%w; the agent runs as uid %d and may not do that, give it the right or use another path or owner", err, os.Geteuid())
	case is(syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EEXIST):
		e.Reason, e.Err = v1.ReasonConflict, fmt.Errorf("%w; something else is in the way, move it", err)
	}
	return e
}

// restore puts an entry back as it was.
func restore[V any](m map[string]V, key string, before V, there bool) {
	if there {
		m[key] = before
	} else {
		delete(m, key)
	}
}
