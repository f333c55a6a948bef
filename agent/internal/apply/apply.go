// Package apply carries out the planner's steps on the host, one after the
// other, and keeps the inventory of what the agent owns. It decides nothing: a
// step that turns out to be done already is done again or left, with the same
// result.
//
// In: host.Steps in their order, the inventory. Out: a changed host, the
// inventory saved before and after every change, a Record of every step, and at
// the first step that fails a *host.Error that names it; what follows isn't
// tried.
//
// What may be interrupted at any point:
//   - Ownership is saved before a thing is made. A crash leaves at most an entry
//     for something that isn't there.
//   - A start or restart is entered as PendingRestart, with the unit's
//     InvocationID, before it is ordered. Afterwards another InvocationID
//     proves that it happened.
//   - A one-shot restart is entered in the same way by the id of its task, so it
//     runs once and once only. A reload leaves no trace in systemd, and reading
//     the configuration once more harms nothing: it is entered when it was done.
//   - The former content of a unit file is kept beside it until systemd has
//     loaded the new one, and comes back where that can't be loaded.
package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Units tells the states of units.
type Units interface {
	Units(ctx context.Context, names []string) (map[string]host.UnitState, error)
	// Explain says why systemd can't load a unit with this content; "" if nobody knows.
	Explain(ctx context.Context, unit string, content []byte) string
}

// UnitFiles makes the manager read and link unit files.
type UnitFiles interface {
	DaemonReload(ctx context.Context) error
	Enable(ctx context.Context, unit string) (changed bool, err error)
	Disable(ctx context.Context, unit string) (changed bool, err error)
}

// Jobs starts and stops units. Each waits until it is done.
type Jobs interface {
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Reload(ctx context.Context, unit string) error
	ResetFailed(ctx context.Context, unit string) error
}

// Systemd is one manager. All errors are *host.Error.
type Systemd interface {
	Units
	UnitFiles
	Jobs
}

// Packages changes what is installed.
type Packages interface {
	// Activate makes a staged version the current one.
	Activate(name, digest string) error
	// Remove removes a package, all of its versions and its link.
	Remove(name string) error
}

// Stager brings a package onto the node without activating it.
type Stager interface {
	Stage(ctx context.Context, pkg task.Package) error
}

// Applier runs steps on one host. Its fields are set once.
type Applier struct {
	Systemd  Systemd
	Packages Packages
	// Stager runs StagePackage steps. It may be nil where there are none.
	Stager Stager
	// UnitDir is the folder that unit files are written to.
	UnitDir string
	// FileRoots are the folders below which files may be written and removed.
	FileRoots []string
	Now       func() time.Time
}

// Record is what came of one step, for the audit log.
type Record struct {
	Step host.Step
	// Before and After are digests, of a file or a package, where there are any.
	Before, After string
	// Err is nil when the step is done.
	Err error
}

// Run runs steps in the given order. It stops at the first that fails, and at a
// cancelled ctx between two steps. inv is updated in place, and every change of
// it goes through save at once. record is called once for every step that was
// tried.
func (a *Applier) Run(ctx context.Context, steps []host.Step, inv *host.Inventory, save func(host.Inventory) error, record func(Record)) error {
	*inv = inv.Clone() // every map is there
	r := &run{Applier: a, inv: inv, save: save}
	err := r.steps(ctx, steps, record)
	if r.linked && ctx.Err() == nil {
		// The manager follows links only after it read them, as systemctl enable
		// has it do. Nothing waits for that, so once for all of them is enough.
		err = errors.Join(err, r.Systemd.DaemonReload(ctx))
	}
	return err
}

func (r *run) steps(ctx context.Context, steps []host.Step, record func(Record)) error {
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := Record{Step: step}
		rec.Err = r.step(ctx, step, &rec)
		if rec.Err != nil {
			rec.Err = named(step, rec.Err)
		}
		record(rec)
		if rec.Err != nil {
			return rec.Err
		}
	}
	return nil
}

// run is one Run.
type run struct {
	*Applier
	inv  *host.Inventory
	save func(host.Inventory) error
	// written holds the names of the units written since the last DaemonReload.
	written []string
	// linked is true when units were enabled or disabled since the last DaemonReload.
	linked bool
}

func (r *run) step(ctx context.Context, s host.Step, rec *Record) error {
	switch s.Action {
	case host.StagePackage:
		return r.stage(ctx, s)
	case host.StopService:
		return r.stop(ctx, s)
	case host.DisableUnit:
		return r.disable(ctx, s)
	case host.RemoveUnit:
		return r.removeUnit(ctx, s, rec)
	case host.WriteFile:
		return r.writeFile(s, rec)
	case host.WriteUnit:
		return r.writeUnit(s, rec)
	case host.ActivatePackage:
		return r.activate(s, rec)
	case host.DaemonReload:
		return r.daemonReload(ctx)
	case host.EnableUnit:
		return r.enable(ctx, s)
	case host.StartService:
		return r.start(ctx, s)
	case host.RestartService:
		return r.restart(ctx, s)
	case host.AcceptInputs:
		return r.accept(s)
	case host.RunAction:
		return r.action(ctx, s)
	case host.RemoveFile:
		return r.removeFile(s, rec)
	case host.RemovePackage:
		return r.removePackage(s, rec)
	case host.ForgetResource:
		return r.forget(s)
	}
	return fmt.Errorf("unknown action %d; this is a bug of the agent, please report it", s.Action)
}

// update changes the inventory and saves it.
func (r *run) update(change func(*host.Inventory)) error {
	change(r.inv)
	if err := r.save(*r.inv); err != nil {
		return fmt.Errorf("cannot save the inventory: %w", err)
	}
	return nil
}

// named adds to an error which step it belongs to.
func named(s host.Step, err error) error {
	cause := host.AsError(err)
	e := *cause
	if e.Component == "agent" {
		e.Component = "apply"
	}
	if err != error(cause) && errors.Is(err, error(cause)) { //nolint:errorlint // is it the cause itself, or something around it
		e.Err = err // what went wrong besides belongs to it
	}
	if s.Ref != "" {
		e.Element = s.Ref
	}
	return &e
}

// nameOf is the name of the step's resource.
func nameOf(s host.Step) string {
	if s.Name != "" {
		return s.Name
	}
	_, name, _ := strings.Cut(s.Ref, "/")
	return name
}

func (r *run) stage(ctx context.Context, s host.Step) error {
	if r.Stager == nil {
		return &host.Error{Component: "apply", Reason: v1.ReasonInternal, Err: fmt.Errorf("nobody can stage %s here", s.Ref)}
	}
	if _, owned := r.inv.Packages[s.Package.Name]; !owned {
		if err := r.update(func(inv *host.Inventory) { inv.Packages[s.Package.Name] = host.OwnedPackage{} }); err != nil {
			return err
		}
	}
	return r.Stager.Stage(ctx, *s.Package)
}

func (r *run) activate(s host.Step, rec *Record) error {
	name, digest := s.Package.Name, s.Package.Digest
	before := r.inv.Packages[name]
	rec.Before, rec.After = before.Digest, digest
	now := before
	if before.Digest != digest {
		now = host.OwnedPackage{Digest: digest, Previous: before.Digest}
	}
	if err := r.update(func(inv *host.Inventory) { inv.Packages[name] = now }); err != nil {
		return err
	}
	return r.Packages.Activate(name, digest)
}

func (r *run) removePackage(s host.Step, rec *Record) error {
	name := nameOf(s)
	rec.Before = r.inv.Packages[name].Digest
	if err := r.Packages.Remove(name); err != nil {
		return err
	}
	return r.update(func(inv *host.Inventory) { delete(inv.Packages, name) })
}

// forget drops an entry. What it was about is gone, or stays as it is.
func (r *run) forget(s host.Step) error {
	kind, _, _ := strings.Cut(s.Ref, "/")
	name := nameOf(s)
	return r.update(func(inv *host.Inventory) {
		switch kind {
		case "package":
			delete(inv.Packages, name)
		case "file":
			delete(inv.Files, name)
		case "unit":
			delete(inv.Units, name)
		case "service":
			delete(inv.Services, name)
		}
	})
}
