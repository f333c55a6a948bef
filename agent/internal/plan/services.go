package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
)

// service plans what one service_control task asks for.
func (p *planner) service(want *task.Service) {
	ref := want.Ref()
	obs, looked := p.Observed.Units[want.Unit]
	if !looked {
		p.unobserved(ref, want.Source)
		return
	}
	p.units[want.Unit] = true
	if !p.controllable(want, obs) || !p.enablement(want, obs) {
		return
	}
	switch {
	case want.Action != "":
		p.oneShot(want)
	case want.State == task.Stopped:
		p.stopped(want, obs)
	default:
		p.running(want, obs)
	}
}

// serviceStep is a step on a wanted service.
func serviceStep(action host.Action, want *task.Service, reason string) host.Step {
	return host.Step{Action: action, Ref: want.Ref(), Task: want.Source, Service: want, Name: want.Unit, Reason: reason}
}

func wantsEnabled(want *task.Service) bool { return want.Enabled != nil && *want.Enabled }

// controllable notes services that can't be had, whatever is done.
func (p *planner) controllable(want *task.Service, obs host.UnitState) bool {
	ref := want.Ref()
	_, installed := p.wantedUnit(want.Unit)
	owned := p.ownsUnit(want.Unit)
	needed := want.State == task.Running || want.Action != "" || wantsEnabled(want)
	switch {
	case installed || !needed:
		return true
	case owned:
		p.conflict(ref, want.Source, "is still wanted, but the task that installs %s left the manifest; remove both or none", want.Unit)
	case obs.LoadState == "not-found" || obs.LoadState == "":
		p.conflict(ref, want.Source, "there is no unit %s on this node; add a task that installs it, or install it on the node", want.Unit)
	case obs.LoadState == "masked":
		p.conflict(ref, want.Source, "is masked on this node; run systemctl unmask %s", want.Unit)
	case obs.LoadState != "loaded":
		p.conflict(ref, want.Source, "systemd cannot load %s (%s); see systemctl status %s", obs.Fragment, obs.LoadState, want.Unit)
	default:
		return true
	}
	return false
}

// wantedUnit is the resource that the file of a unit comes from: for an
// instance, "a@1.service", that of its template, unless it has one of its own.
func (p *planner) wantedUnit(name string) (task.Unit, bool) {
	u, ok := p.index.byRef["unit/"+name].(task.Unit)
	if template := templateOf(name); !ok && template != "" {
		u, ok = p.index.byRef["unit/"+template].(task.Unit)
	}
	return u, ok
}

// ownsUnit reports whether the agent wrote the file of a unit, or of its template.
func (p *planner) ownsUnit(name string) bool {
	_, ok := p.Inventory.Units[name]
	if template := templateOf(name); !ok && template != "" {
		_, ok = p.Inventory.Units[template]
	}
	return ok
}

// templateOf is "a@.service" for "a@1.service", and "" for what is no instance.
func templateOf(name string) string {
	prefix, rest, ok := strings.Cut(name, "@")
	if dot := strings.LastIndexByte(rest, '.'); ok && dot > 0 {
		return prefix + "@" + rest[dot:]
	}
	return ""
}

// enablement plans whether the unit starts at boot. It is false when that
// can't be had.
func (p *planner) enablement(want *task.Service, obs host.UnitState) bool {
	if want.Enabled == nil {
		return true
	}
	own, known := p.Inventory.Services[want.Unit]
	if !*want.Enabled {
		if linked(obs, own) {
			s := serviceStep(host.DisableUnit, want, "starts at boot, wanted enabled: false")
			s.Drift = known && !own.Enabled
			p.step(s)
		}
		return true
	}
	changes := p.rewritten["unit/"+want.Unit] || p.rewritten["unit/"+templateOf(want.Unit)]
	if obs.Enabled() && !changes {
		return true
	}
	if !p.canEnable(want, obs) {
		p.conflict(want.Ref(), want.Source,
			"cannot be enabled: %s has no WantedBy= or RequiredBy= in an [Install] section; add one, or drop enabled: true", want.Unit)
		return false
	}
	s := serviceStep(host.EnableUnit, want, "does not start at boot, wanted enabled: true")
	s.Drift = own.Enabled
	if obs.Enabled() {
		s.Drift, s.Reason = false, "its unit file changes, and with it perhaps its [Install] section"
	}
	p.step(s)
	return true
}

// linked reports whether a unit starts at boot, or would as soon as its file is
// back: the links of an enabled unit outlive its file.
func linked(obs host.UnitState, own host.OwnedService) bool {
	return obs.Enabled() || own.Enabled && !obs.File.Exists && obs.LoadState != "loaded"
}

// canEnable looks at the unit that will be there when enabling is tried.
func (p *planner) canEnable(want *task.Service, obs host.UnitState) bool {
	u, installed := p.wantedUnit(want.Unit)
	switch {
	case installed && pending(&u):
		return true
	case installed:
		f, err := unitfile.Parse(u.Content)
		// What can't be parsed is the guard's to refuse.
		return err != nil || slices.ContainsFunc(f.Assignments, func(a unitfile.Assignment) bool {
			return a.Section == "Install" && a.Value != "" &&
				(a.Key == "WantedBy" || a.Key == "RequiredBy" || a.Key == "UpheldBy" || a.Key == "Alias")
		})
	}
	return !slices.Contains([]string{"static", "generated", "transient"}, obs.UnitFileState)
}

func (p *planner) oneShot(want *task.Service) {
	if _, ran := p.Inventory.Actions[want.Source]; !ran {
		p.step(serviceStep(host.RunAction, want, fmt.Sprintf("one-shot %s, not run on this node yet", want.Action)))
	}
}

func (p *planner) stopped(want *task.Service, obs host.UnitState) {
	own, known := p.Inventory.Services[want.Unit]
	switch {
	case obs.Active():
		s := serviceStep(host.StopService, want, "runs, wanted stopped")
		// Inputs are those of a running service: without, the agent had stopped it.
		s.Drift = known && own.Inputs == "" && own.Pending == nil
		p.step(s)
	case own.Pending != nil:
		p.step(serviceStep(host.AcceptInputs, want, "is stopped; the restart that was begun is not needed any more"))
	}
}

// running plans the start or restart of a service, once per change of its inputs.
func (p *planner) running(want *task.Service, obs host.UnitState) {
	own, known := p.Inventory.Services[want.Unit]
	inputs := p.index.inputs(*want)
	step := func(action host.Action, reason string) {
		s := serviceStep(action, want, reason)
		s.Inputs = inputs
		if action == host.RestartService {
			s.Invocation = obs.InvocationID
		}
		if action == host.StartService {
			s.Drift = known && inputs != "" && own.Inputs == inputs
		}
		p.step(s)
	}
	if !obs.Active() {
		ran := inputs != "" && own.Inputs == inputs && own.Pending == nil
		if !ran || !p.endsWell(want, obs) {
			step(host.StartService, notRunning(obs))
		}
		return
	}
	if u, unknown := p.index.unresolved(*want); unknown {
		step(host.RestartService, fmt.Sprintf("may need it: the content of %s comes from package %s, not read yet", u.Name, u.Package))
		return
	}
	switch {
	case own.Pending != nil && own.Pending.Inputs == inputs:
		// An interrupted restart. It may have come before the inputs were touched again.
		if restarted(obs, own.Pending) && len(p.changing(want)) == 0 {
			step(host.AcceptInputs, "was restarted already, before the agent was interrupted")
		} else {
			step(host.RestartService, "the restart that was begun did not happen")
		}
	case own.Pending != nil && own.Inputs == inputs && !restarted(obs, own.Pending):
		step(host.AcceptInputs, "still runs with what is wanted; the restart that was begun is not needed any more")
	case own.Inputs == "" && len(want.RestartOn) == 0:
		step(host.AcceptInputs, "runs already, and restartOn is empty")
	case own.Inputs == "":
		step(host.RestartService, "runs, but the agent did not start it: it may run with something old")
	case own.Inputs != inputs || own.Pending != nil:
		step(host.RestartService, p.why(want))
	}
}

// restarted reports whether a unit was started again since a restart was begun.
func restarted(obs host.UnitState, pending *host.PendingRestart) bool {
	return obs.InvocationID != pending.Invocation
}

// endsWell reports whether a unit is one that does its work and ends, and did so:
// it has run with what is wanted, and would run at every look if it were started again.
func (p *planner) endsWell(want *task.Service, obs host.UnitState) bool {
	u, installed := p.wantedUnit(want.Unit)
	if !installed || pending(&u) || obs.ServiceType != "oneshot" || obs.ActiveState != "inactive" || obs.Result != "success" {
		return false
	}
	f, err := unitfile.Parse(u.Content)
	return err == nil && !slices.ContainsFunc(f.Assignments, func(a unitfile.Assignment) bool {
		return a.Section == "Service" && a.Key == "RemainAfterExit" && isTrue(a.Value)
	})
}

// isTrue reads a boolean as systemd does.
func isTrue(value string) bool {
	return slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(strings.TrimSpace(value)))
}

func notRunning(obs host.UnitState) string {
	switch {
	case obs.ActiveState == "failed" && obs.Result != "":
		return "has failed (" + obs.Result + "), wanted running"
	case obs.ActiveState == "failed":
		return "has failed, wanted running"
	}
	return "does not run, wanted running"
}

// changing returns what this plan changes of a service's inputs.
func (p *planner) changing(want *task.Service) []string {
	var refs []string
	for _, ref := range want.RestartOn {
		if p.rewritten[ref] {
			refs = append(refs, ref)
		}
	}
	return refs
}

func (p *planner) why(want *task.Service) string {
	if refs := p.changing(want); len(refs) > 0 {
		names := make([]string, len(refs))
		for i, ref := range refs {
			_, names[i], _ = strings.Cut(ref, "/")
		}
		return "changes: " + list(names)
	}
	return "what it depends on changed since it was started"
}
