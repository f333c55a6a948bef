package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Activate makes a complete version the current one: one atomic, durable
// replacement of the link. It does nothing if it is current already, and
// refuses a version that Check, without contents, finds changed. Such a version
// no longer counts as complete, so that the next Unpack replaces it.
func (s *Store) Activate(name, dgst string) error {
	if err := checkVersion(name, dgst); err != nil {
		return err
	}
	state, err := s.State(name)
	if err != nil {
		return err
	}
	if state.Current == dgst {
		return nil
	}
	if !state.Versions[dgst] {
		return &host.Error{Component: component, Element: "package/" + name, Reason: v1.ReasonInternal, Retry: true,
			Err: fmt.Errorf("cannot activate %s: it is not unpacked", dgst)}
	}
	if err := s.intact(name, dgst); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.options.Root)
	if err != nil {
		return diskError(name, "cannot activate the package", err)
	}
	defer func() { _ = root.Close() }()
	if err := swing(root, name, path.Join(versions, folderOf(dgst))); err != nil {
		return diskError(name, "cannot activate the package", err)
	}
	return nil
}

func (s *Store) intact(name, dgst string) error {
	diffs, err := s.Check(name, dgst, false)
	if err != nil || len(diffs) == 0 {
		return err
	}
	if err := durable.Remove(s.VersionPath(name, dgst) + listSuffix); err != nil {
		return diskError(name, "cannot set a changed version aside", err)
	}
	return &host.Error{Component: component, Element: "package/" + name, Reason: v1.ReasonDigestMismatch, Retry: true,
		Err: fmt.Errorf("cannot activate %s: somebody changed it since it was unpacked (%d differences, the first: %s %s); "+
			"it will be unpacked again", dgst, len(diffs), diffs[0].Path, diffs[0].What)}
}

// swing replaces the current link of a package.
func swing(root *os.Root, name, target string) error {
	link, fresh := path.Join(name, currentLink), path.Join(name, durable.TempPrefix+currentLink)
	if info, err := root.Lstat(link); err == nil && info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("%s is no symlink: the agent didn't make it; move it away", link)
	}
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(target, fresh); err != nil {
		return err
	}
	if err := root.Rename(fresh, link); err != nil {
		return errors.Join(err, root.Remove(fresh))
	}
	return syncDir(root, name)
}

// RemoveVersion removes a version that isn't current. One that isn't there is fine.
func (s *Store) RemoveVersion(name, dgst string) error {
	if err := checkVersion(name, dgst); err != nil {
		return err
	}
	state, err := s.State(name)
	if err != nil {
		return err
	}
	if state.Current == dgst {
		return &host.Error{Component: component, Element: "package/" + name, Reason: v1.ReasonInternal,
			Err: fmt.Errorf("cannot remove %s: it is the current version", dgst)}
	}
	folder := rel(name, dgst)
	return s.discard(name, folder, folder+listSuffix)
}

// Remove removes a package with all versions and its link. One that isn't
// there is fine.
func (s *Store) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.discard(name, name)
}

// discard moves things out of sight, each by one rename, and removes them then.
// Who is interrupted leaves them in staging, where Open finds them.
func (s *Store) discard(name string, things ...string) error {
	root, err := os.OpenRoot(s.options.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskError(name, "cannot remove the package", err)
	}
	defer func() { _ = root.Close() }()
	if err := makeFolder(s.options.Root+"/"+staging, 0o700); err != nil {
		return diskError(name, "cannot make the staging folder", err)
	}
	b, err := newBench(root, name)
	if errors.Is(err, unix.ENOSPC) {
		// Making room must not need any.
		err = removeInPlace(root, things)
		if err == nil {
			return nil
		}
	}
	if err != nil {
		return diskError(name, "cannot remove the package", err)
	}
	var errs []error
	for i, thing := range things {
		err := root.Rename(thing, b.path(fmt.Sprint(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = syncDir(root, path.Dir(thing))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, b.close())...); err != nil {
		return diskError(name, "cannot remove the package", err)
	}
	return nil
}

// removeInPlace is discard where even staging has no room: the last thing, or a
// package's versions, must be out of sight before the rest goes.
func removeInPlace(root *os.Root, things []string) error {
	for _, thing := range slices.Backward(things) {
		if !strings.Contains(thing, "/") {
			hidden := path.Join(thing, durable.TempPrefix+versions)
			if err := root.Rename(path.Join(thing, versions), hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := root.RemoveAll(thing); err != nil {
			return err
		}
		if err := syncDir(root, path.Dir(thing)); err != nil {
			return err
		}
	}
	return nil
}

// Collect removes, of each package in keep, the versions that are neither
// listed there nor current, and returns "name@digest" of each, sorted.
// Packages that keep doesn't mention are left alone.
func (s *Store) Collect(keep map[string][]string) (removed []string, err error) {
	var errs []error
	for name, digests := range keep {
		state, err := s.State(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for d := range state.Versions {
			if d == state.Current || slices.Contains(digests, d) {
				continue
			}
			if err := s.RemoveVersion(name, d); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, name+"@"+d)
		}
	}
	slices.Sort(removed)
	return removed, errors.Join(errs...)
}

func sortDifferences(diffs []Difference) {
	slices.SortFunc(diffs, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
}
