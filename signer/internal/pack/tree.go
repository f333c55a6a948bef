package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An entry is one file, folder or symlink of a package.
type entry struct {
	// path is slash-separated and relative to the package.
	path string
	kind fs.FileMode // fs.ModeDir, fs.ModeSymlink or 0
	exec bool
	size int64
	link string
	// root is the folder that the file is in.
	root *os.Root
}

// A tree is the content of one variant: entries sorted by path.
type tree struct {
	entries []entry
	roots   []*os.Root
	size    int64
}

func (t *tree) Close() error {
	var errs []error
	for _, r := range t.roots {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func (t *tree) find(p string) (entry, bool) {
	i, ok := slices.BinarySearchFunc(t.entries, p, func(e entry, p string) int { return strings.Compare(e.path, p) })
	if !ok {
		return entry{}, false
	}
	return t.entries[i], true
}

// openTree reads the folders of a variant and refuses what a node would not
// unpack. All refusals are reported at once. The caller closes the tree.
func openTree(dir *os.Root, folders []string) (_ *tree, err error) {
	t := &tree{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	var bad []error
	byPath := map[string]entry{}
	for _, folder := range folders {
		root, err := dir.OpenRoot(folder)
		if err != nil {
			return nil, fmt.Errorf("cannot open the package's folder %s: %w (was it built?)", path.Join(dir.Name(), folder), err)
		}
		t.roots = append(t.roots, root)
		problems, err := walk(root, folder, byPath)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path.Join(dir.Name(), folder), err)
		}
		bad = append(bad, problems...)
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	for _, p := range sortedKeys(byPath) {
		e := byPath[p]
		t.entries = append(t.entries, e)
		t.size += e.size
	}
	return t, nil
}

// walk adds what is in root to byPath, and returns what must not be in a package.
func walk(root *os.Root, folder string, byPath map[string]entry) (bad []error, err error) {
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e, err := makeEntry(root, p, info)
		if err == nil {
			err = mergeEntry(byPath, e)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("cannot package %s: %w", path.Join(folder, p), err))
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return nil
	})
	return bad, err
}

func makeEntry(root *os.Root, p string, info fs.FileInfo) (entry, error) {
	e := entry{path: p, kind: info.Mode().Type(), root: root}
	if err := checkName(p); err != nil {
		return e, err
	}
	if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 && e.kind == 0 {
		return e, errors.New("it is setuid or setgid, which a package must not hold; clear it with chmod ug-s")
	}
	switch e.kind {
	case fs.ModeDir:
	case 0:
		e.size = info.Size()
		e.exec = info.Mode()&0o111 != 0
	case fs.ModeSymlink:
		link, err := root.Readlink(p)
		if err != nil {
			return e, err
		}
		e.link = link
		return e, checkLink(root, p, link)
	default:
		return e, fmt.Errorf("it is a %s; a package holds regular files, folders and symlinks", kindName(e.kind))
	}
	return e, nil
}

// checkName refuses names that some tool on the way would change or misread.
func checkName(p string) error {
	if !utf8.ValidString(p) {
		return errors.New("its name is not UTF-8")
	}
	if strings.ContainsFunc(p, unicode.IsControl) {
		return errors.New("its name holds a control character")
	}
	return nil
}

// checkLink accepts a relative symlink that ends at something inside the
// package, both when its text is joined and when the file system follows it.
func checkLink(root *os.Root, p, link string) error {
	if path.IsAbs(link) {
		return fmt.Errorf("it is a symlink to the absolute path %q; make it relative", link)
	}
	joined := path.Join(path.Dir(p), link)
	if joined == ".." || strings.HasPrefix(joined, "../") {
		return fmt.Errorf("it is a symlink to %q, which is outside the package", link)
	}
	if _, err := root.Stat(p); err != nil {
		return fmt.Errorf("it is a symlink to %q, which is not inside the same folder of the package", link)
	}
	return nil
}

func mergeEntry(byPath map[string]entry, e entry) error {
	old, exists := byPath[e.path]
	if !exists {
		byPath[e.path] = e
		return nil
	}
	if old.kind == fs.ModeDir && e.kind == fs.ModeDir {
		return nil
	}
	return errors.New("root has a file of the same name; a file comes from root or from a platform's folder, not from both")
}

func kindName(m fs.FileMode) string {
	switch {
	case m&fs.ModeDevice != 0:
		return "device"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	default:
		return "special file"
	}
}

// checkDeclared holds the tree against what package.yaml says is in it.
func (t *tree) checkDeclared(s *Source, v variant) error {
	var bad []error
	where := "the package"
	if v.platform != "" {
		where = "platform " + v.platform
	}
	if len(t.entries) == 0 {
		bad = append(bad, fmt.Errorf("%s has no files", where))
	}
	for _, p := range s.EntryPoints {
		if e, ok := t.find(p); !ok || e.kind == fs.ModeDir {
			bad = append(bad, fmt.Errorf("%s has no file %s, which entryPoints of %s names", where, p, SourceFile))
		} else if e.kind == 0 && !e.exec {
			bad = append(bad, fmt.Errorf("%s has %s, which entryPoints of %s names, but it isn't executable", where, p, SourceFile))
		}
	}
	for _, p := range s.Units {
		if e, ok := t.find(p); !ok || e.kind != 0 {
			bad = append(bad, fmt.Errorf("%s has no file %s, which units of %s names", where, p, SourceFile))
		}
	}
	return errors.Join(bad...)
}
