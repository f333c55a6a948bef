package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const (
	component    = "store"
	versions     = "versions"
	currentLink  = "current"
	staging      = ".staging"
	listSuffix   = ".files"
	digestPrefix = "sha256-"
)

// Options of Open.
type Options struct {
	// Root is the folder of packages, an absolute path. The first Unpack makes it.
	Root string
	// Executable is a binary with the hidden command ChildCommand, which then does
	// the unpacking in a process of its own; "" unpacks in this one.
	Executable string
	// Limits that are zero get their defaults.
	Limits Limits
	// MinFree is how many bytes of the disk unpacking must leave free.
	MinFree int64
	// ReadOnly leaves even the leftovers of crashed processes alone: for commands
	// that only look.
	ReadOnly bool
}

// Limits bound what a package may unpack to.
type Limits struct {
	// Entries is how many files, folders and symlinks; default 200,000.
	Entries int `json:"entries"`
	// Bytes is how many bytes of archive, uncompressed; default 64 GiB.
	Bytes int64 `json:"bytes"`
	// Ratio is how many uncompressed bytes may come of one compressed byte, on
	// the whole and beyond the first 64 MiB; default 200.
	Ratio int64 `json:"ratio"`
}

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 200_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 64 << 30
	}
	if l.Ratio <= 0 {
		l.Ratio = 200
	}
	return l
}

// Package is what Unpack installs.
type Package struct {
	// Name is the package's name: [a-z0-9][a-z0-9._-]*.
	Name string `json:"name"`
	// Digest is the one that the manifest pins.
	Digest string `json:"digest"`
	// Layers are unpacked over each other, in order.
	Layers []Layer `json:"layers"`
	// UnpackedSize is how many bytes are expected, 0 if that isn't known. It only
	// serves to refuse early what the disk can't hold.
	UnpackedSize int64 `json:"unpackedSize,omitempty"`
}

// Layer is one archive on disk.
type Layer struct {
	// MediaType ends in ".tar", ".tar+gzip" or ".tar+zstd".
	MediaType string `json:"mediaType"`
	Path      string `json:"path"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// Store is the folder of packages. Methods that only look are safe for
// concurrent use; those that change something are for one goroutine.
type Store struct{ options Options }

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)

// Open returns the store and removes what crashed processes left in staging.
func Open(o Options) (*Store, error) {
	if !filepath.IsAbs(o.Root) {
		return nil, &host.Error{Component: component, Element: o.Root, Reason: v1.ReasonConfig,
			Err: fmt.Errorf("the package folder %q is no absolute path", o.Root)}
	}
	o.Limits = o.Limits.withDefaults()
	s := &Store{options: o}
	if o.ReadOnly {
		return s, nil
	}
	return s, s.clean()
}

// Path returns the path that leads to the current version of a package:
// what manifests and units name.
func (s *Store) Path(name string) string { return filepath.Join(s.options.Root, name, currentLink) }

// VersionPath returns the folder of one version.
func (s *Store) VersionPath(name, dgst string) string {
	return filepath.Join(s.options.Root, name, versions, folderOf(dgst))
}

func folderOf(dgst string) string { return digestPrefix + strings.TrimPrefix(dgst, "sha256:") }

// digestOf is the inverse of folderOf; "" if the folder is none of ours.
func digestOf(folder string) string {
	hex, ok := strings.CutPrefix(folder, digestPrefix)
	if d := "sha256:" + hex; ok && digest.Check(d) == nil {
		return d
	}
	return ""
}

// State returns which versions are complete and which is current. A current
// link that leads to anything but a complete version counts as none.
// A package that isn't there has the empty state.
func (s *Store) State(name string) (host.PackageState, error) {
	state := host.PackageState{Versions: map[string]bool{}}
	if err := checkName(name); err != nil {
		return state, err
	}
	root, err := os.OpenRoot(filepath.Join(s.options.Root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, diskError(name, "cannot look at the package", err)
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), versions)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state, diskError(name, "cannot look at the package's versions", err)
	}
	for _, e := range entries {
		d := digestOf(e.Name())
		if d != "" && e.IsDir() && hasEntry(entries, e.Name()+listSuffix) {
			state.Versions[d] = true
		}
	}
	link, err := root.Readlink(currentLink)
	if err != nil {
		return state, nil // absent, or no link: nothing is current
	}
	if folder, ok := strings.CutPrefix(link, versions+"/"); ok && state.Versions[digestOf(folder)] {
		state.Current = digestOf(folder)
	}
	return state, nil
}

func hasEntry(sorted []fs.DirEntry, name string) bool {
	_, found := slices.BinarySearchFunc(sorted, name, func(e fs.DirEntry, n string) int { return strings.Compare(e.Name(), n) })
	return found
}

// Unpack makes the version of p complete, unless it is: after it, State says so. Nothing
// that is there already changes. Errors are *host.Error with element
// "package/<name>" and one of the reasons PackageInvalid (for good),
// DigestMismatch (a damaged blob: fetch it again), NoSpace, NotWritable, Internal.
func (s *Store) Unpack(ctx context.Context, p Package) error {
	state, err := s.State(p.Name)
	if err != nil {
		return err
	}
	if err := digest.Check(p.Digest); err != nil {
		return invalid(p.Name, err)
	}
	if state.Versions[p.Digest] {
		return nil
	}
	if err := s.prepare(p); err != nil {
		return err
	}
	work := job{Root: s.options.Root, Limits: s.options.Limits, Package: p}
	if s.options.Executable == "" {
		return work.run(ctx)
	}
	err = child.Run(ctx, child.Command{
		Executable: s.options.Executable, Name: ChildCommand, Component: component, Stdin: work,
	}, nil)
	if err == nil {
		return nil
	}
	e := *host.AsError(err)
	e.Element = "package/" + p.Name
	// A child that was killed couldn't tidy up.
	return errors.Join(&e, s.clean())
}

// prepare makes the staging folder and refuses what the disk can't hold.
func (s *Store) prepare(p Package) error {
	if err := makeFolder(s.options.Root, 0o755); err != nil {
		return diskError(p.Name, "cannot make the package folder", err)
	}
	if err := makeFolder(filepath.Join(s.options.Root, staging), 0o700); err != nil {
		return diskError(p.Name, "cannot make the staging folder", err)
	}
	need := p.UnpackedSize
	if need <= 0 {
		for _, l := range p.Layers {
			need += l.Size
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.options.Root, &disk); err != nil {
		return diskError(p.Name, "cannot ask for the disk's free space", err)
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < need+s.options.MinFree {
		return &host.Error{Component: component, Element: "package/" + p.Name, Reason: v1.ReasonNoSpace, Retry: true, Err: fmt.Errorf(
			"cannot unpack: %s has %d bytes free, and %d are needed (%d to unpack, %d to stay free); make room there",
			s.options.Root, free, need+s.options.MinFree, need, s.options.MinFree)}
	}
	return nil
}

// ReadFile returns a regular file of a version, of at most limit bytes. name is
// slash-separated and relative; symlinks are followed inside the version.
// The error wraps fs.ErrNotExist if version or file isn't there.
func (s *Store) ReadFile(name, dgst, file string, limit int64) ([]byte, error) {
	if err := checkVersion(name, dgst); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.VersionPath(name, dgst))
	if err != nil {
		return nil, diskError(name, "cannot read a file of the package", err)
	}
	defer func() { _ = root.Close() }()
	data, err := readRegular(root, file, limit)
	if err != nil {
		return nil, diskError(name, "cannot read a file of the package", err)
	}
	return data, nil
}

func checkName(name string) error {
	if !validName.MatchString(name) {
		return invalid(name, fmt.Errorf("%.200q is no package name; allowed are a-z, 0-9, and inside it . _ -", name))
	}
	return nil
}

func checkVersion(name, dgst string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := digest.Check(dgst); err != nil {
		return invalid(name, err)
	}
	return nil
}

func invalid(name string, err error) *host.Error {
	return &host.Error{Component: component, Element: "package/" + name, Reason: v1.ReasonPackageInvalid, Err: err}
}

// diskError is the *host.Error for a failure of the file system.
func diskError(name, what string, err error) *host.Error {
	e := &host.Error{Component: component, Element: "package/" + name, Reason: v1.ReasonInternal, Retry: true}
	advice := ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		e.Reason, advice = v1.ReasonNoSpace, "; make room on that disk"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		e.Reason, advice = v1.ReasonNotWritable, "; the agent needs the package folder writable"
	}
	e.Err = fmt.Errorf("%s: %w%s", what, err, advice)
	return e
}

// rel returns the path of a version relative to the root.
func rel(name, dgst string) string { return path.Join(name, versions, folderOf(dgst)) }
