package store

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gpuaas/node-agent/agent/internal/digest"
)

const (
	maxPath  = 1024 // bytes
	maxName  = 255  // bytes of one component
	maxDepth = 64   // components
	// flushers is how many files are on their way to the disk at once, while
	// more are unpacked: a journal commits them together.
	flushers = 16
)

// extractor unpacks archives into one folder.
type extractor struct {
	root    *os.Root
	limits  Limits
	hasher  *digest.Hasher
	flusher *flusher
	entries map[string]*Entry
	links   []*Entry // made last, so that nothing is ever written through one
	bytes   int64
}

func newExtractor(root *os.Root, limits Limits) *extractor {
	return &extractor{root: root, limits: limits, hasher: digest.NewHasher(), flusher: newFlusher(), entries: map[string]*Entry{}}
}

func (x *extractor) close() {
	_ = x.flusher.wait() // after finish there is nothing left
	x.hasher.Close()
}

// archive unpacks one tar stream, all but its symlinks.
func (x *extractor) archive(stream io.Reader) error {
	t := tar.NewReader(stream)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return checkRest(stream)
		}
		if err != nil {
			return err
		}
		if err := x.entry(h, t); err != nil {
			return err
		}
	}
}

// checkRest refuses what another reader might take for more entries.
func checkRest(stream io.Reader) error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buffer)
		for _, b := range buffer[:n] {
			if b != 0 {
				return refuse("there is data after the end of the archive")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	name, err := cleanPath(h)
	if err != nil {
		return err
	}
	if err := checkHeader(h, name); err != nil {
		return err
	}
	if name == "." {
		return nil // the folder itself
	}
	if err := x.parents(path.Dir(name)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return x.folder(name)
	}
	if err := x.add(name); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return x.symlink(name, h.Linkname)
	}
	return x.file(name, h, content)
}

// cleanPath returns the entry's path without a leading "./" or a folder's
// trailing slash, and refuses every other path that isn't plain.
func cleanPath(h *tar.Header) (string, error) {
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if name != "." {
		name = strings.TrimPrefix(name, "./")
	}
	switch {
	case name == "" && h.Typeflag == tar.TypeDir && h.Name == "./":
		return ".", nil
	case name == ".":
		return ".", nil
	case len(name) > maxPath:
		return "", refuse("a path has %d bytes; allowed are %d", len(name), maxPath)
	case !utf8.ValidString(name):
		return "", refuse("the path %q is not UTF-8", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", refuse("the path %q holds a control character", name)
	case strings.HasPrefix(name, "/"):
		return "", refuse("the path %q is absolute", name)
	}
	components := strings.Split(name, "/")
	if len(components) > maxDepth {
		return "", refuse("the path %q is %d folders deep; allowed are %d", name, len(components), maxDepth)
	}
	for _, c := range components {
		switch {
		case c == "" || c == "." || c == "..":
			return "", refuse("the path %q is not plain: it has an empty, \".\" or \"..\" component", h.Name)
		case len(c) > maxName:
			return "", refuse("a file name has %d bytes; allowed are %d", len(c), maxName)
		case strings.HasPrefix(c, ".wh."):
			return "", refuse("%q is a whiteout of a container image, which a package can't hold", name)
		}
	}
	return name, nil
}

// checkHeader refuses kinds of entries and attributes that a package can't hold.
func checkHeader(h *tar.Header, name string) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
	case tar.TypeLink:
		return refuse("%q is a hard link, which a package can't hold", name)
	case tar.TypeChar, tar.TypeBlock:
		return refuse("%q is a device, which a package can't hold", name)
	case tar.TypeFifo:
		return refuse("%q is a named pipe, which a package can't hold", name)
	default:
		return refuse("%q is an entry of type %q, which a package can't hold", name, h.Typeflag)
	}
	if name == "." && h.Typeflag != tar.TypeDir {
		return refuse("the package itself is no folder")
	}
	if h.Typeflag != tar.TypeReg && h.Size != 0 {
		return refuse("%q has content, though it is no file", name)
	}
	if h.Mode&0o7000 != 0 && h.Typeflag != tar.TypeSymlink {
		return refuse("%q is setuid, setgid or sticky (mode %o), which a package can't hold", name, h.Mode)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return refuse("%q is a sparse file; archive it without --sparse", name)
		}
		if strings.HasPrefix(key, "SCHILY.xattr.security.") || strings.HasPrefix(key, "SCHILY.acl.") {
			return refuse("%q has the attribute %q, which a package can't hold", name, key)
		}
	}
	return nil
}

// add enters a path that may not be there yet.
func (x *extractor) add(name string) error {
	if _, exists := x.entries[name]; exists {
		return refuse("%q is there twice", name)
	}
	if len(x.entries) >= x.limits.Entries {
		return refuse("the package has more than %d entries, the limit of this node's configuration", x.limits.Entries)
	}
	x.entries[name] = &Entry{Path: name}
	return nil
}

// parents makes the folders on the way to an entry, which archives may leave out.
func (x *extractor) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if e := x.entries[dir]; e != nil {
		if e.Type != "dir" {
			return refuse("%q is used as a folder, and is a %s", dir, e.Type)
		}
		return nil
	}
	if err := x.parents(path.Dir(dir)); err != nil {
		return err
	}
	return x.folder(dir)
}

// folder makes a folder. The same one may come again, also from another layer.
func (x *extractor) folder(name string) error {
	if e := x.entries[name]; e != nil {
		if e.Type != "dir" {
			return refuse("%q is there twice, as a %s and as a folder", name, e.Type)
		}
		return nil
	}
	if err := x.add(name); err != nil {
		return err
	}
	e := x.entries[name]
	e.Type, e.Mode = "dir", "0755"
	if err := x.root.Mkdir(name, 0o755); err != nil {
		return collision(name, err)
	}
	return x.root.Chmod(name, 0o755) // the umask may have taken some away
}

func (x *extractor) symlink(name, target string) error {
	joined := path.Join(path.Dir(name), target)
	switch {
	case target == "" || len(target) > maxPath || !utf8.ValidString(target) || strings.ContainsFunc(target, unicode.IsControl):
		return refuse("%q is a symlink to %q, which is no plain path", name, target)
	case path.IsAbs(target):
		return refuse("%q is a symlink to the absolute path %q; make it relative", name, target)
	case joined == ".." || strings.HasPrefix(joined, "../"):
		return refuse("%q is a symlink to %q, which is outside the package", name, target)
	}
	e := x.entries[name]
	e.Type, e.Link = "symlink", target
	x.links = append(x.links, e)
	return nil
}

// file writes a regular file; its way to the disk goes on beside the next ones.
func (x *extractor) file(name string, h *tar.Header, content io.Reader) error {
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return collision(name, err)
	}
	size, err := x.copy(f, content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	e := x.entries[name]
	e.Type, e.Mode, e.Size, e.Digest = "file", octal(mode), size, x.hasher.Sum()
	return x.flusher.put(f)
}

// copy writes content and hashes it.
func (x *extractor) copy(f *os.File, content io.Reader) (size int64, err error) {
	for {
		buffer := x.hasher.Buffer()
		n, readErr := fill(content, buffer)
		_, err := f.Write(buffer[:n])
		x.hasher.Put(buffer[:n])
		size += int64(n)
		switch {
		case err != nil:
			return size, err
		case errors.Is(readErr, io.EOF):
			return size, nil
		case readErr != nil:
			return size, readErr
		}
	}
}

// fill reads until buffer is full or r ends. Unlike io.ReadFull's, its error is
// r's own: an archive that is cut off differs from a file that ends.
func fill(r io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = r.Read(buffer[n:])
		n += m
	}
	return n, err
}

// collision explains a name that is free in the archive and taken on the disk.
func collision(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return refuse("%q is there twice, as this file system tells names apart (by case or Unicode form)", name)
	}
	return err
}

// finish makes the symlinks, checks where they end, and waits until all is on the disk.
func (x *extractor) finish() error {
	if len(x.entries) == 0 {
		return refuse("the package is empty")
	}
	slices.SortFunc(x.links, func(a, b *Entry) int { return strings.Compare(a.Path, b.Path) })
	for _, l := range x.links {
		if err := x.root.Symlink(l.Link, l.Path); err != nil {
			return collision(l.Path, err)
		}
	}
	for _, l := range x.links {
		// The root follows links itself, and refuses to leave.
		if _, err := x.root.Stat(l.Path); err != nil {
			return refuse("%q is a symlink to %q, which isn't inside the package", l.Path, l.Link)
		}
	}
	dirs := []string{"."}
	for _, e := range x.entries {
		if e.Type == "dir" {
			dirs = append(dirs, e.Path)
		}
	}
	for _, dir := range dirs {
		f, err := x.root.Open(dir)
		if err != nil {
			return err
		}
		if err := x.flusher.put(f); err != nil {
			return err
		}
	}
	return x.flusher.wait()
}
