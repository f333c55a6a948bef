package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func (r *run) stop(ctx context.Context, s host.Step) error {
	name := nameOf(s)
	if err := r.Systemd.Stop(ctx, name); err != nil {
		return err
	}
	owned, known := r.inv.Services[name]
	if !known && s.Service == nil {
		return nil // being pruned, and never held
	}
	if known && owned.Inputs == "" && owned.Pending == nil {
		return nil
	}
	return r.service(name, func(o *host.OwnedService) { o.Inputs, o.Pending = "", nil })
}

// start starts a unit that doesn't run.
func (r *run) start(ctx context.Context, s host.Step) error {
	name := nameOf(s)
	state, err := r.state(ctx, name)
	if err != nil {
		return err
	}
	if err := r.begin(name, s.Inputs, state.InvocationID); err != nil {
		return err
	}
	return r.finish(name, s.Inputs, r.fresh(ctx, name, r.Systemd.Start))
}

// restart restarts a unit once for these inputs, however often it is interrupted.
//
// Its present InvocationID counts, not that of the plan: inputs were written
// since, and whoever restarted the unit in between may have done it too early.
func (r *run) restart(ctx context.Context, s host.Step) error {
	name := nameOf(s)
	state, err := r.state(ctx, name)
	if err != nil {
		return err
	}
	if err := r.begin(name, s.Inputs, state.InvocationID); err != nil {
		return err
	}
	return r.finish(name, s.Inputs, r.fresh(ctx, name, r.Systemd.Restart))
}

// fresh starts a unit although it failed, or was started so often lately that
// systemd would refuse: that limit is for units that restart themselves.
func (r *run) fresh(ctx context.Context, name string, start func(context.Context, string) error) error {
	if err := r.Systemd.ResetFailed(ctx, name); err != nil {
		return err
	}
	return start(ctx, name)
}

func (r *run) begin(name, inputs, invocation string) error {
	return r.service(name, func(o *host.OwnedService) {
		o.Pending = &host.PendingRestart{Inputs: inputs, Invocation: invocation}
	})
}

// finish enters how a start or restart ended. Where that isn't known, the entry
// stays pending, and the InvocationID will tell.
func (r *run) finish(name, inputs string, err error) error {
	switch {
	case err == nil:
		return r.service(name, func(o *host.OwnedService) { o.Inputs, o.Pending = inputs, nil })
	case unknown(err):
		return err
	}
	return errors.Join(err, r.service(name, func(o *host.OwnedService) { o.Pending = nil }))
}

// unknown reports whether err leaves open what happened.
func unknown(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		host.AsError(err).Reason == v1.ReasonSystemdMissing
}

func (r *run) accept(s host.Step) error {
	return r.service(nameOf(s), func(o *host.OwnedService) { o.Inputs, o.Pending = s.Inputs, nil })
}

// action runs a one-shot.
func (r *run) action(ctx context.Context, s host.Step) error {
	if s.Service.Action == task.Reload {
		if err := r.Systemd.Reload(ctx, s.Service.Unit); err != nil {
			return err
		}
		return r.ran(s.Task)
	}
	state, err := r.state(ctx, s.Service.Unit)
	if err != nil {
		return err
	}
	if before, begun := r.inv.PendingActions[s.Task]; begun && before != state.InvocationID {
		return r.ran(s.Task)
	}
	if err := r.update(func(inv *host.Inventory) { inv.PendingActions[s.Task] = state.InvocationID }); err != nil {
		return err
	}
	err = r.fresh(ctx, s.Service.Unit, r.Systemd.Restart)
	switch {
	case err == nil:
		return r.ran(s.Task)
	case unknown(err):
		return err
	}
	return errors.Join(err, r.update(func(inv *host.Inventory) { delete(inv.PendingActions, s.Task) }))
}

func (r *run) ran(id string) error {
	return r.update(func(inv *host.Inventory) {
		inv.Actions[id] = r.Now().UTC()
		delete(inv.PendingActions, id)
	})
}

func (r *run) state(ctx context.Context, unit string) (host.UnitState, error) {
	states, err := r.Systemd.Units(ctx, []string{unit})
	if err != nil {
		return host.UnitState{}, err
	}
	state, ok := states[unit]
	if !ok {
		return host.UnitState{}, fmt.Errorf("systemd did not tell the state of %s", unit)
	}
	return state, nil
}
