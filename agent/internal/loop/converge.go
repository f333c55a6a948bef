package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/guard"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// desired is one manifest, decoded.
type desired struct {
	name      journal.Manifest
	manifest  v1.NodeManifest
	resources []task.Resource
}

// isTarget reports whether d is the newest verified manifest.
func (l *Loop) isTarget(d desired) bool {
	t := l.Journal.State.Target
	return t != nil && *t == d.name
}

// isGood reports whether d passed its probation before. A host without anything
// of ours was good before the first manifest.
func (l *Loop) isGood(d desired) bool {
	g := l.Journal.State.LastGood
	return d.isNothing() || g != nil && *g == d.name
}

// isNothing reports whether d wants nothing of ours to be on the host.
func (d desired) isNothing() bool { return d.name == journal.Manifest{} }

// converge makes the host what the newest usable manifest says. cause is for the log.
func (l *Loop) converge(ctx context.Context, cause string) {
	l.worked = true
	l.Notifier.Working()
	defer l.publish()
	s := &l.Journal.State
	if s.Target == nil {
		return
	}
	l.Log.Debug("reconcile", "cause", cause)
	due := !l.retryAt.After(l.Now())
	if due {
		l.retryAt = time.Time{}
	}
	if s.Hold == nil && due {
		if l.pass(ctx, *s.Target) || ctx.Err() != nil {
			return
		}
	}
	// The newest manifest is held, refused, or waits for another try: what was
	// good before is what the host gets until then.
	if good, ok := l.fallback(); ok && ctx.Err() == nil {
		l.pass(ctx, good)
		l.to(Held)
	}
	if s.Hold != nil {
		l.showHold()
	}
}

// fallback is what the host gets while it doesn't get the target. Without a good
// manifest that is nothing, once the target is held: what a rollback could not
// remove must go all the same.
func (l *Loop) fallback() (name journal.Manifest, ok bool) {
	s := l.Journal.State
	if s.LastGood == nil {
		return journal.Manifest{}, s.Hold != nil
	}
	return *s.LastGood, *s.LastGood != *s.Target
}

// pass brings the host to one manifest. It reports whether the pass reached it,
// or decided everything that there is to decide (a rollback).
func (l *Loop) pass(ctx context.Context, name journal.Manifest) bool {
	d, err := l.load(name)
	if err != nil {
		l.fail("plan", host.AsError(err))
		return false
	}
	p, err := l.prepare(ctx, &d)
	if ctx.Err() != nil {
		return true
	}
	if err != nil {
		l.notReached(d, host.AsError(err))
		return false
	}
	return l.carryOut(ctx, d, p)
}

func (l *Loop) load(name journal.Manifest) (desired, error) {
	if name == (journal.Manifest{}) {
		return desired{}, nil
	}
	data, err := l.Journal.LoadManifest(name)
	if err != nil && l.verified != nil && l.verified.Digest() == name.Digest {
		// What was verified holds the same bytes, so the kept file heals.
		data = l.verified.Bytes()
		_, err = l.Journal.SaveManifest(data, name.Generation)
	}
	if err != nil {
		return desired{}, err
	}
	return decode(name, data)
}

func decode(name journal.Manifest, data []byte) (desired, error) {
	m, err := v1.DecodeManifest("manifest "+name.Digest, data)
	if err != nil {
		return desired{}, &host.Error{Component: "plan", Reason: v1.ReasonMalformed, Err: err}
	}
	resources, err := m.Resources()
	if err != nil {
		return desired{}, &host.Error{Component: "plan", Reason: v1.ReasonMalformed, Err: err}
	}
	return desired{name: name, manifest: m, resources: resources}, nil
}

// prepare judges, stages and plans. The host behaves as before until it returned.
func (l *Loop) prepare(ctx context.Context, d *desired) (plan.Plan, error) {
	l.working = d.name
	p, err := l.computePlan(ctx, d)
	if err != nil {
		return p, err
	}
	if l.isTarget(*d) {
		l.to(Planned)
	}
	staged, err := l.stage(ctx, p)
	if err != nil {
		return p, err
	}
	if l.isTarget(*d) {
		l.condition(v1.Staged, v1.True, v1.ReasonOK, "")
		l.to(Staged)
	}
	if staged {
		// Unit files can be read now, so guard and planner see everything.
		return l.computePlan(ctx, d)
	}
	return p, nil
}

// computePlan resolves what is on the node already, asks the guard, looks at the
// host and plans. It changes nothing.
func (l *Loop) computePlan(ctx context.Context, d *desired) (plan.Plan, error) {
	observed, err := l.Observer.Observe(ctx, d.resources, l.Journal.Inventory)
	if err != nil {
		return plan.Plan{}, err
	}
	if err := l.resolve(d, observed); err != nil {
		return plan.Plan{}, err
	}
	if err := guardError(guard.Check(l.Guard, d.resources)); err != nil {
		return plan.Plan{}, err
	}
	p := plan.Compute(plan.Input{
		Resources: d.resources, Observed: observed, Inventory: l.Journal.Inventory,
		Self: l.Self, UnitDir: l.UnitDir,
	})
	return p, p.Err()
}

// resolve fills the content of units that come from packages which are staged.
func (l *Loop) resolve(d *desired, observed host.Observed) error {
	digests := map[string]string{}
	for _, r := range d.resources {
		if p, ok := r.(task.Package); ok {
			digests[p.Name] = p.Digest
		}
	}
	for i, r := range d.resources {
		u, ok := r.(task.Unit)
		if !ok || u.Package == "" || u.Content != nil {
			continue
		}
		digest := digests[u.Package]
		if !observed.Packages[u.Package].Versions[digest] {
			continue
		}
		data, err := l.Packages.ReadFile(u.Package, digest, u.File)
		if err != nil {
			return &host.Error{Component: "plan", Element: u.Ref(), Reason: v1.ReasonPackageInvalid,
				Err: fmt.Errorf("cannot read %s of package %s: %w", u.File, u.Package, err)}
		}
		u.Content = data
		d.resources[i] = u
	}
	return nil
}

func guardError(violations []guard.Violation) error {
	if len(violations) == 0 {
		return nil
	}
	lines := make([]string, len(violations))
	for i, v := range violations {
		lines[i] = v.Message
	}
	return &host.Error{Component: "guard", Element: violations[0].Ref, Reason: v1.ReasonGuard,
		Err: fmt.Errorf("the node's guard refuses the manifest: %s", strings.Join(lines, "; "))}
}

// stage fetches what the plan wants staged and reports whether there was anything.
func (l *Loop) stage(ctx context.Context, p plan.Plan) (staged bool, err error) {
	for _, s := range p.Staging() {
		staged = true
		l.Notifier.Status("staging " + s.Ref)
		l.Notifier.Working()
		l.Log.Info("staging", "package", s.Package.Name, "digest", s.Package.Digest, "reason", s.Reason)
		err := l.Packages.Stage(ctx, *s.Package)
		l.auditStep(apply.Record{Step: s, After: s.Package.Digest, Err: err})
		if err != nil {
			return true, err
		}
	}
	return staged, nil
}

// notReached is a manifest that failed before the host was touched.
func (l *Loop) notReached(d desired, e *host.Error) {
	if !l.isTarget(d) {
		l.fail("plan", e)
		return
	}
	if e.Retry {
		l.postpone()
	} else {
		// A new manifest, a restart or SIGHUP helps, time hardly ever.
		l.retryAt = l.Now().Add(jitter(damperMax))
	}
	phase := "plan"
	if e.Component == "fetch" || e.Component == "store" {
		phase = "stage"
		l.condition(v1.Staged, v1.False, e.Reason, e.Error())
	}
	l.fail(phase, e)
	l.condition(v1.Applied, v1.False, e.Reason, e.Error())
	l.to(Held)
	l.refused(report.Record{Generation: d.name.Generation, Manifest: d.name.Digest, Resource: e.Element, Error: e.Error()})
	l.Log.Error("cannot apply the manifest; the host stays as it is", "generation", d.name.Generation,
		"component", e.Component, "element", e.Element, "reason", e.Reason, "error", e)
}

// postpone sets the time of the next try of the target: 1s, 2s, 4s ... 5m.
func (l *Loop) postpone() {
	l.retryAt = l.Now().Add(jitter(backoff(l.Journal.State.Attempts)))
	l.Journal.State.Attempts++
	if err := l.Journal.Save(); err != nil {
		l.Log.Error("cannot save the journal", "error", err)
	}
}

// carryOut applies a plan, watches what it touched, and commits or rolls back.
func (l *Loop) carryOut(ctx context.Context, d desired, p plan.Plan) bool {
	fresh := !l.isGood(d)
	if len(p.Steps) == 0 && !fresh && l.unproven != d.name.Digest {
		l.reached(d, p.Notices)
		return true
	}
	if !fresh && !d.isNothing() && host.Disruptive(p.Steps) {
		l.noteDrift(p.Steps)
	}
	if fresh && l.isTarget(d) && len(p.Steps) > 0 {
		l.to(Applying)
		l.Journal.State.Phase = string(Applying)
		if err := l.Journal.Save(); err != nil {
			l.notReached(d, host.AsError(err))
			return false
		}
	}
	err := l.apply(ctx, p.Steps)
	if err == nil {
		err = l.probation(ctx, d, p.Steps, fresh)
	}
	if ctx.Err() != nil {
		return true // a stop is no failure; the next start goes on
	}
	if err != nil {
		l.failed(ctx, d, host.AsError(err), fresh)
		return true
	}
	if fresh && !l.commit(d) {
		return true
	}
	l.reached(d, p.Notices)
	return true
}

func (l *Loop) apply(ctx context.Context, steps []host.Step) error {
	for _, s := range steps {
		if s.Action != host.StagePackage {
			l.Log.Info("step", "action", s.Action.String(), "resource", s.Ref, "reason", s.Reason)
		}
	}
	// What is on the node without being activated still has to become the agent's.
	steps = slices.DeleteFunc(slices.Clone(steps), func(s host.Step) bool {
		return s.Action == host.StagePackage && s.Package.Activate
	})
	if len(steps) == 0 {
		return nil
	}
	inv := l.Journal.Inventory.Clone()
	return l.Applier.Run(ctx, steps, &inv, l.Journal.SaveInventory, l.auditStep)
}

// probation watches the services that steps touched, or all of a manifest that
// is unproven.
func (l *Loop) probation(ctx context.Context, d desired, steps []host.Step, fresh bool) error {
	touched, all := map[string]bool{}, l.unproven == d.name.Digest
	for _, s := range steps {
		switch s.Action {
		case host.StartService, host.RestartService, host.RunAction:
			touched[s.Service.Unit] = true
		}
	}
	var services []task.Service
	for _, r := range d.resources {
		if s, ok := r.(task.Service); ok && s.State == task.Running && (touched[s.Unit] || all) {
			services = append(services, s)
		}
	}
	if len(services) > 0 {
		if fresh && l.isTarget(d) {
			l.to(Probation)
			l.publish()
		}
		if err := l.Prober.Probe(ctx, services); err != nil {
			return err
		}
	}
	if all {
		l.unproven = ""
	}
	return nil
}

// commit makes d the last good manifest and collects garbage. What can't be made
// durable isn't committed, and tried again.
func (l *Loop) commit(d desired) bool {
	s := &l.Journal.State
	before := *s
	s.LastGood, s.Attempts, s.Phase, s.Applied = &d.name, 0, string(Committed), l.Now().UTC()
	if err := l.Journal.Save(); err != nil {
		*s = before
		l.fail("commit", host.AsError(err))
		l.retryAt = l.Now().Add(backoff(s.Attempts))
		s.Attempts++
		l.Log.Error("cannot save the journal", "error", err)
		return false
	}
	l.retryAt = time.Time{}
	l.audit(report.Record{Event: "committed", Result: "ok"})
	l.Log.Info("committed", "generation", d.name.Generation, "digest", d.name.Digest)
	l.collect(d)
	return true
}

// collect drops kept manifests and package versions that nothing needs. What
// fails here fails nothing else: the next commit tries again.
func (l *Loop) collect(d desired) {
	keep := map[string][]string{}
	for _, r := range d.resources {
		if p, ok := r.(task.Package); ok {
			keep[p.Name] = append(keep[p.Name], p.Digest)
		}
	}
	for name, owned := range l.Journal.Inventory.Packages {
		keep[name] = append(keep[name], owned.Digest, owned.Previous)
	}
	if err := errors.Join(l.Packages.Collect(keep), l.Journal.DropManifests()); err != nil {
		l.Log.Warn("cannot collect garbage", "error", err)
	}
}
