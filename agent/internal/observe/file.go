package observe

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/gpuaas/node-agent/agent/internal/host"
)

// MaxFile is the size of the largest file that is read. A larger one has no
// Digest, and so differs from every wanted content, which is smaller.
const MaxFile = 16 << 20

// File looks at one path without following a symlink at its end.
func File(path string) host.FileState { return newLook().file(path) }

// look is one round of looking. It remembers the names of owners, each of which
// costs reading a file of the system.
type look struct {
	users, groups map[uint32]string
	buffer        []byte
}

func newLook() *look {
	return &look{users: map[uint32]string{}, groups: map[uint32]string{}, buffer: make([]byte, 32<<10)}
}

func (l *look) file(path string) host.FileState {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return host.FileState{}
	}
	if err != nil {
		return host.FileState{Err: err.Error()}
	}
	if kind := kindOf(info.Mode()); kind != "file" {
		return host.FileState{Exists: true, Kind: kind}
	}
	return l.regular(path)
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "dir"
	case mode.Type() == fs.ModeSymlink:
		return "symlink"
	}
	return "other"
}

// regular reads a file. Whoever may write its folder can put something else
// there at any moment: neither a symlink is followed nor a pipe waited for.
func (l *look) regular(path string) host.FileState {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return host.FileState{}
	}
	if err != nil {
		return host.FileState{Exists: true, Kind: "file", Err: err.Error()}
	}
	defer func() { _ = f.Close() }() // Nothing was written.
	info, err := f.Stat()
	if err != nil {
		return host.FileState{Exists: true, Kind: "file", Err: err.Error()}
	}
	if !info.Mode().IsRegular() {
		return host.FileState{Exists: true, Kind: kindOf(info.Mode())}
	}
	state := host.FileState{Exists: true, Kind: "file", Size: info.Size(), Mode: info.Mode().Perm()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		state.UID, state.GID = stat.Uid, stat.Gid
		state.Owner, state.Group = l.user(stat.Uid), l.group(stat.Gid)
	}
	if state.Digest, err = l.digest(f); err != nil {
		state.Err = fmt.Sprintf("cannot read %s: %v", path, err)
	}
	return state
}

// digest returns "" for what is larger than MaxFile.
func (l *look) digest(r io.Reader) (string, error) {
	hash := sha256.New()
	// Hidden methods keep io.CopyBuffer from taking another way than the buffer.
	n, err := io.CopyBuffer(hash, struct{ io.Reader }{io.LimitReader(r, MaxFile+1)}, l.buffer)
	if err != nil || n > MaxFile {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

func (l *look) user(id uint32) string {
	return remember(l.users, id, func(text string) (string, error) {
		u, err := user.LookupId(text)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (l *look) group(id uint32) string {
	return remember(l.groups, id, func(text string) (string, error) {
		g, err := user.LookupGroupId(text)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// remember looks an id's name up once; an id without a name is its own.
func remember(known map[uint32]string, id uint32, lookup func(string) (string, error)) string {
	if name, ok := known[id]; ok {
		return name
	}
	text := strconv.FormatUint(uint64(id), 10)
	name, err := lookup(text)
	if err != nil {
		name = text
	}
	known[id] = name
	return name
}
