package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/internal/durable"
)

const (
	listVersion = 1
	// maxList bounds a list of files when it is read back.
	maxList = 256 << 20
)

// FileList says what a version consists of. It is written when the version is
// unpacked and is what a later look at it is compared with.
type FileList struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Digest  string `json:"digest"`
	// Entries are sorted by path.
	Entries []Entry `json:"entries"`
}

// Entry is one file, folder or symlink.
type Entry struct {
	// Path is slash-separated and relative to the version.
	Path string `json:"path"`
	// Type is "file", "dir" or "symlink".
	Type string `json:"type"`
	// Mode has the permission bits of a file or folder, like "0755".
	Mode string `json:"mode,omitempty"`
	// Size and Digest are those of a file.
	Size   int64  `json:"size,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Link is the target of a symlink.
	Link string `json:"link,omitempty"`
}

// Difference is one thing of a version that isn't as it was unpacked.
type Difference struct {
	Path string
	// What is "missing", "added", "type", "mode", "owner", "size", "content" or "link".
	What string
}

// Files returns the list of a complete version.
func (s *Store) Files(name, dgst string) (FileList, error) {
	var l FileList
	if err := checkVersion(name, dgst); err != nil {
		return l, err
	}
	root, err := os.OpenRoot(filepath.Join(s.options.Root, name, versions))
	if err != nil {
		return l, diskError(name, "cannot read the list of the package's files", err)
	}
	defer func() { _ = root.Close() }()
	data, err := readRegular(root, folderOf(dgst)+listSuffix, maxList)
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err == nil && l.Version != listVersion {
		err = fmt.Errorf("it has version %d; this agent knows %d", l.Version, listVersion)
	}
	if err != nil {
		return l, diskError(name, "cannot read the list of the package's files", err)
	}
	return l, nil
}

func writeList(path string, l FileList) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), durable.Options{Mode: 0o644})
}

// Check compares a version with its list and returns the differences, sorted
// by path. Without content it looks only at what lstat tells, some
// microseconds a file; with it every file is read.
func (s *Store) Check(name, dgst string, content bool) ([]Difference, error) {
	list, err := s.Files(name, dgst)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.VersionPath(name, dgst))
	if err != nil {
		return nil, diskError(name, "cannot check the package's files", err)
	}
	defer func() { _ = root.Close() }()
	want := make(map[string]Entry, len(list.Entries))
	for _, e := range list.Entries {
		want[e.Path] = e
	}
	var diffs []Difference
	seen := 0
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		e, known := want[p]
		if !known {
			diffs = append(diffs, Difference{p, "added"})
			return nil
		}
		seen++
		what, err := e.compare(root, content)
		if what != "" {
			diffs = append(diffs, Difference{p, what})
		}
		return err
	})
	if err != nil {
		return nil, diskError(name, "cannot check the package's files", err)
	}
	if seen < len(want) {
		diffs = append(diffs, missing(root, list.Entries)...)
	}
	sortDifferences(diffs)
	return diffs, nil
}

func missing(root *os.Root, entries []Entry) []Difference {
	var diffs []Difference
	for _, e := range entries {
		if _, err := root.Lstat(e.Path); err != nil {
			diffs = append(diffs, Difference{e.Path, "missing"})
		}
	}
	return diffs
}

// compare returns what differs between e and what is there, "" for nothing.
func (e Entry) compare(root *os.Root, content bool) (string, error) {
	info, err := root.Lstat(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	if typeName(info.Mode()) != e.Type {
		return "type", nil
	}
	if e.Type == "symlink" {
		link, err := root.Readlink(e.Path)
		if err == nil && link != e.Link {
			return "link", nil
		}
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return "owner", nil
	}
	if octal(info.Mode()) != e.Mode {
		return "mode", nil
	}
	if e.Type == "file" && info.Size() != e.Size {
		return "size", nil
	}
	if e.Type != "file" || !content {
		return "", nil
	}
	return e.compareContent(root)
}

func (e Entry) compareContent(root *os.Root) (string, error) {
	f, err := root.OpenFile(e.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	r := digest.NewReader(io.LimitReader(f, e.Size+1))
	defer r.Close()
	sum, _, err := r.Sum()
	if err == nil && sum != e.Digest {
		return "content", nil
	}
	return "", err
}

func typeName(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "dir"
	case m.Type() == fs.ModeSymlink:
		return "symlink"
	}
	return "other"
}

// octal writes a mode the way chmod reads it, set-id and sticky bits included.
func octal(m fs.FileMode) string {
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return fmt.Sprintf("%04o", bits)
}
