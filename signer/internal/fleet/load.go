package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Load reads the fleet repo whose root is fsys. What people wrote wrong comes
// back as strict.Errors, all of it, sorted by file and position; any other error
// means that fsys can't be read. Files are read by several goroutines.
func Load(fsys fs.FS) (*Fleet, error) {
	l := &loader{fsys: fsys}
	f := &Fleet{Fleet: l.fleet().WithDefaults()}
	packages := l.list(PackagesFolder, false)
	profiles := l.list(ProfilesFolder, false)
	nodes := l.list(NodesFolder, true)
	if l.broken != nil {
		return nil, l.broken
	}
	f.Packages = decodeAll(l, packages, func(file string, data []byte) (Package, string, error) {
		p, err := v1.DecodePackage(file, data)
		return Package{file, p}, p.Name, err
	})
	f.Profiles = decodeAll(l, profiles, func(file string, data []byte) (Profile, string, error) {
		p, err := v1.DecodeProfile(file, data)
		return Profile{file, p}, p.Name, err
	})
	f.Nodes = decodeAll(l, nodes, func(file string, data []byte) (Node, string, error) {
		n, err := v1.DecodeNode(file, data)
		return Node{file, n}, n.ID, err
	})
	slices.SortFunc(f.Packages, func(a, b Package) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(f.Profiles, func(a, b Profile) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(f.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.File, b.File))
	})
	l.check(f)
	if l.broken != nil {
		return nil, l.broken
	}
	if len(l.errs) > 0 {
		return nil, l.sorted()
	}
	return f, nil
}

// loader collects what is wrong.
type loader struct {
	fsys fs.FS

	mu     sync.Mutex
	errs   strict.Errors
	broken error // the first error of reading
	// failed are the files that can't be decoded, without .yaml and folders; what
	// they would have declared is not reported as missing.
	failed map[string]bool
}

// addErr adds an error of strict, or else notes that reading failed.
func (l *loader) addErr(file string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs strict.Errors
	if errors.As(err, &errs) {
		l.errs = append(l.errs, errs...)
		if l.failed == nil {
			l.failed = map[string]bool{}
		}
		l.failed[strings.TrimSuffix(file, yamlSuffix)] = true
		return
	}
	if l.broken == nil {
		l.broken = err
	}
}

// add reports something wrong with a whole file or folder.
func (l *loader) add(file, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, &strict.Error{File: file, Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) sorted() strict.Errors {
	slices.SortStableFunc(l.errs, func(a, b *strict.Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message))
	})
	return l.errs
}

func (l *loader) fleet() v1.Fleet {
	data, err := l.read(File)
	if errors.Is(err, fs.ErrNotExist) {
		l.add(File, "missing; a fleet repo begins with this file: make one with gpuaas-signer init, or use -C to name the repo's folder")
		l.failed = map[string]bool{"fleet": true}
		return v1.Fleet{}
	}
	if err != nil {
		l.addErr(File, err)
		return v1.Fleet{}
	}
	f, err := v1.DecodeFleet(File, data)
	if err != nil {
		l.addErr(File, err)
	}
	return f
}

// read reads a file, one byte more than strict takes at most, so that strict
// says what is wrong with a longer one.
func (l *loader) read(file string) ([]byte, error) {
	f, err := l.fsys.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the fleet repo: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, strict.MaxSize+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the fleet repo: %w", err)
	}
	return data, nil
}

const yamlSuffix = ".yaml"

// list returns the YAML files of a folder, and reports what else is there.
// Names that begin with a dot are left alone: .gitkeep, editors' files.
func (l *loader) list(folder string, deep bool) []string {
	var files []string
	err := fs.WalkDir(l.fsys, folder, func(p string, d fs.DirEntry, err error) error {
		switch {
		case p == folder && errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read the fleet repo: %w", err)
		case p == folder && d.IsDir():
			return nil
		case strings.HasPrefix(path.Base(p), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir() && deep:
		case d.IsDir():
			l.add(p, "unknown folder; %s/ holds files only", folder)
			return fs.SkipDir
		case !d.Type().IsRegular():
			l.add(p, "not a regular file; symlinks and the like are not followed")
		case path.Ext(p) != yamlSuffix:
			l.add(p, "unknown file; %s/ holds files that end in %s", folder, yamlSuffix)
		default:
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		l.addErr(folder, err)
	}
	if len(files) > MaxNodes {
		l.add(folder, "found %d files; at most %d are allowed", len(files), MaxNodes)
		return nil
	}
	return files
}

// decodeAll reads and decodes files on all processors, and checks that each is
// named after what is in it. The order of the result is that of files.
func decodeAll[T any](l *loader, files []string, decode func(file string, data []byte) (T, string, error)) []T {
	out := make([]T, len(files))
	good := make([]bool, len(files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					return
				}
				out[i], good[i] = decodeOne(l, files[i], decode)
			}
		})
	}
	wg.Wait()
	var kept []T
	for i := range out {
		if good[i] {
			kept = append(kept, out[i])
		}
	}
	return kept
}

func decodeOne[T any](l *loader, file string, decode func(file string, data []byte) (T, string, error)) (T, bool) {
	var zero T
	data, err := l.read(file)
	if err != nil {
		l.addErr(file, err)
		return zero, false
	}
	v, name, err := decode(file, data)
	if err != nil {
		l.addErr(file, err)
		return zero, false
	}
	if want := name + yamlSuffix; path.Base(file) != want {
		key := "name"
		if strings.HasPrefix(file, NodesFolder+"/") {
			key = "id"
		}
		l.at(file, v1.Problem{Field: key, Message: fmt.Sprintf("found %q; the file of that name must be called %s", name, want)})
	}
	return v, true
}

// at reports problems at their fields' positions.
func (l *loader) at(file string, problems ...v1.Problem) {
	if len(problems) == 0 {
		return
	}
	data, err := l.read(file)
	if err != nil {
		l.addErr(file, err)
		return
	}
	root, err := strict.Parse(file, data)
	if err != nil {
		l.addErr(file, err)
		return
	}
	errs := Locate(file, root, problems...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, errs...)
}
