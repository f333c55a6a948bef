package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// formerPrefix starts the name of the kept, former content of a unit file.
// systemd overlooks hidden files.
const formerPrefix = ".gpuaas-former-"

// maxUnit caps the unit files that are read here.
const maxUnit = 1 << 20

func (r *run) writeUnit(s host.Step, rec *Record) error {
	u := s.Unit
	dir, err := r.unitFolder(u.Name, true)
	if err != nil {
		return err
	}
	defer closeRoot(dir)
	opts := durable.Options{Mode: host.UnitMode}
	rec.Before, rec.After = digestIn(dir, u.Name), digestOf(u.Content)
	before, owned := r.inv.Units[u.Name]
	if err := r.update(func(inv *host.Inventory) { inv.Units[u.Name] = host.OwnedUnit{Digest: rec.After} }); err != nil {
		return err
	}
	if rec.Before == rec.After && hasMode(dir, u.Name, opts) {
		return nil
	}
	err = keepFormer(dir, u.Name, rec.Before)
	if err == nil {
		err = durable.WriteIn(dir, u.Name, u.Content, opts)
	}
	if err != nil {
		return errors.Join(diskError(filepath.Join(r.UnitDir, u.Name), err), r.update(func(inv *host.Inventory) {
			restore(inv.Units, u.Name, before, owned)
		}))
	}
	r.written = append(r.written, u.Name)
	return nil
}

// keepFormer keeps the present unit file under another name. One that is kept
// already is older than any that was not loaded, so it stays.
func keepFormer(dir *os.Root, unit, digest string) error {
	if digest == "" {
		return nil // nothing, or no file
	}
	err := dir.Link(unit, formerPrefix+unit)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot keep the former unit file: %w", err)
	}
	return nil
}

func (r *run) unitFolder(unit string, make bool) (*os.Root, error) {
	if unit == "" || strings.ContainsAny(unit, "/\x00") || strings.HasPrefix(unit, ".") {
		return nil, &host.Error{Component: "apply", Reason: v1.ReasonGuard, Err: fmt.Errorf("%q is no name of a unit file", unit)}
	}
	return r.folder(filepath.Join(r.UnitDir, unit), []string{r.UnitDir}, make)
}

func (r *run) removeUnit(ctx context.Context, s host.Step, rec *Record) error {
	name := nameOf(s)
	dir, err := r.unitFolder(name, false)
	if err != nil {
		return err
	}
	if dir != nil {
		defer closeRoot(dir)
		rec.Before = digestIn(dir, name)
		if err := errors.Join(removeIn(dir, name), removeIn(dir, formerPrefix+name)); err != nil {
			return err
		}
	}
	// A failure that is remembered would keep a unit without a file in systemd's
	// lists. It is no reason to keep the file.
	_ = r.Systemd.ResetFailed(ctx, name)
	return r.update(func(inv *host.Inventory) { delete(inv.Units, name) })
}

// daemonReload makes systemd read unit files, and takes those back that it
// can't load, before anything is started with them.
func (r *run) daemonReload(ctx context.Context) error {
	if err := r.Systemd.DaemonReload(ctx); err != nil {
		return err
	}
	r.linked = false
	dir, err := r.unitFolder("any.service", false)
	if err != nil {
		return err
	}
	if dir == nil {
		return nil
	}
	defer closeRoot(dir)
	former, err := formerUnits(dir)
	if err != nil {
		return err
	}
	check := slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.written, former))))
	states, err := r.Systemd.Units(ctx, check)
	if err != nil {
		return err
	}
	for _, name := range check {
		if refusal := r.refusal(ctx, dir, name, states[name]); refusal != nil {
			return errors.Join(refusal, r.takeBack(ctx, dir, check))
		}
	}
	for _, name := range former {
		if err := removeIn(dir, formerPrefix+name); err != nil {
			return err
		}
	}
	r.written = nil
	return nil
}

// refusal is nil where systemd has loaded our file of the unit.
func (r *run) refusal(ctx context.Context, dir *os.Root, name string, state host.UnitState) error {
	path := filepath.Join(r.UnitDir, name)
	e := &host.Error{Component: "systemd", Element: "unit/" + name}
	switch {
	case state.LoadState == "loaded" && state.Fragment == path:
		return nil
	case state.LoadState == "loaded":
		e.Reason, e.Retry = v1.ReasonConflict, true
		e.Err = fmt.Errorf("systemd takes %s from %s and not from the agent's %s; remove that file, or choose another name", name, state.Fragment, path)
	case state.LoadState == "masked":
		e.Reason, e.Retry = v1.ReasonConflict, true
		e.Err = fmt.Errorf("%s is masked on this node; unmask it with systemctl unmask", name)
	default:
		e.Reason = v1.ReasonUnitInvalid
		why := state.LoadState
		if content, err := readUnit(dir, name); err == nil {
			if words := r.Systemd.Explain(ctx, name, content); words != "" {
				why = words
			}
		}
		e.Err = fmt.Errorf("systemd cannot load the unit file, so all unit files are as they were: %s", why)
	}
	return e
}

// takeBack undoes WriteUnit for all of these units: one without the others
// might fit them as little as before.
func (r *run) takeBack(ctx context.Context, dir *os.Root, names []string) error {
	var errs []error
	for _, name := range names {
		content, err := readUnit(dir, formerPrefix+name)
		switch {
		case err == nil:
			errs = append(errs, diskErrorOrNil(name, dir.Rename(formerPrefix+name, name)),
				r.update(func(inv *host.Inventory) { inv.Units[name] = host.OwnedUnit{Digest: digestOf(content)} }))
		case errors.Is(err, fs.ErrNotExist) && slices.Contains(r.written, name):
			errs = append(errs, removeIn(dir, name), r.update(func(inv *host.Inventory) { delete(inv.Units, name) }))
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, diskError(name, err))
		}
	}
	r.written = nil
	errs = append(errs, durable.SyncRoot(dir), r.Systemd.DaemonReload(ctx))
	return errors.Join(errs...)
}

func diskErrorOrNil(path string, err error) error {
	if err == nil {
		return nil
	}
	return diskError(path, err)
}

// formerUnits returns the units whose former file is kept.
func formerUnits(dir *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, diskError(dir.Name(), err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), formerPrefix); ok && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

func readUnit(dir *os.Root, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxUnit+1))
	if err == nil && len(data) > maxUnit {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxUnit)
	}
	return data, err
}

func (r *run) enable(ctx context.Context, s host.Step) error {
	name := nameOf(s)
	if err := r.service(name, func(o *host.OwnedService) { o.Enabled = true }); err != nil {
		return err
	}
	changed, err := r.Systemd.Enable(ctx, name)
	r.linked = r.linked || changed
	return err
}

func (r *run) disable(ctx context.Context, s host.Step) error {
	name := nameOf(s)
	changed, err := r.Systemd.Disable(ctx, name)
	r.linked = r.linked || changed
	if err != nil {
		return err
	}
	if _, owned := r.inv.Services[name]; !owned {
		return nil
	}
	return r.service(name, func(o *host.OwnedService) { o.Enabled = false })
}

// service changes a service's entry, or makes one.
func (r *run) service(name string, change func(*host.OwnedService)) error {
	return r.update(func(inv *host.Inventory) {
		owned := inv.Services[name]
		change(&owned)
		inv.Services[name] = owned
	})
}
