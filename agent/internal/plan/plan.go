package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"

	"github.com/gpuaas/node-agent/schema/task"
)

// Input is everything that a plan depends on.
type Input struct {
	// Resources are those of the verified manifest, in any order.
	Resources []task.Resource
	// Observed holds every name that Resources or Inventory mention.
	Observed  host.Observed
	Inventory host.Inventory
	// Self is who the agent runs as: the owner of units, and of files whose task
	// names none. Where it is empty, such owners are not compared.
	Self Identity
	// UnitDir is the folder that the agent writes unit files to. Where it is
	// empty, units that are loaded from elsewhere are not noticed.
	UnitDir string
}

// Identity is a user and a group, as host.FileState names them.
type Identity struct{ Owner, Group string }

// Plan is what has to change. Steps are in the order in which they run,
// conflicts and notices in order of Ref.
type Plan struct {
	Steps []host.Step
	// Conflicts are what stands in the way. A plan that has any must not be
	// applied, not even in part.
	Conflicts []Conflict
	// Notices are things that differ on the host and that the agent leaves
	// alone, such as somebody else's drop-in for one of its units.
	Notices []Notice
}

// Conflict is one reason why a plan can't be applied.
type Conflict struct {
	// Ref is the resource's, Task the id of the task that declares it.
	Ref, Task string
	// Message says what is in the way and what to do about it.
	Message string
}

// Notice has the shape of a Conflict but stops nothing.
type Notice Conflict

// Converged reports whether the node is as it should be.
func (p Plan) Converged() bool { return len(p.Steps) == 0 && len(p.Conflicts) == 0 }

// Staging returns the steps that bring packages onto the node without changing
// how it behaves. They come first in Steps.
func (p Plan) Staging() []host.Step {
	n := 0
	for n < len(p.Steps) && p.Steps[n].Action == host.StagePackage {
		n++
	}
	return p.Steps[:n:n]
}

// Resolved reports whether the content of every unit is known. A plan that is
// not resolved is good for showing and for its Staging steps only: compute
// again once the packages are there.
func (p Plan) Resolved() bool {
	return !slices.ContainsFunc(p.Steps, func(s host.Step) bool {
		return s.Action == host.WriteUnit && s.Unit != nil && pending(s.Unit)
	})
}

// Err is nil, or a *host.Error that tells all conflicts.
func (p Plan) Err() error {
	if len(p.Conflicts) == 0 {
		return nil
	}
	lines := make([]string, len(p.Conflicts))
	for i, c := range p.Conflicts {
		lines[i] = c.Ref + ": " + c.Message
	}
	return &host.Error{
		Component: "plan", Element: p.Conflicts[0].Ref, Reason: v1.ReasonConflict,
		// The host may change, and then the same manifest fits.
		Retry: true,
		Err:   fmt.Errorf("cannot apply the manifest, nothing was changed: %s", strings.Join(lines, "; ")),
	}
}

// Compute plans. It never fails: what can't be planned is a conflict.
func Compute(in Input) Plan {
	p := &planner{Input: in, index: indexOf(in.Resources), rewritten: map[string]bool{}, units: map[string]bool{}}
	for _, ref := range p.index.duplicates {
		p.conflict(ref, "", "is declared twice in one manifest")
	}
	for _, r := range p.index.sorted {
		switch r := r.(type) {
		case task.Package:
			p.pkg(&r)
		case task.File:
			p.file(&r)
		case task.Unit:
			p.unit(&r)
		}
	}
	// Services last: what they need depends on what else changes.
	for _, r := range p.index.sorted {
		if svc, ok := r.(task.Service); ok {
			p.service(&svc)
		}
	}
	p.prune()
	p.reload()
	return p.finish()
}

// planner collects the parts of one plan.
type planner struct {
	Input
	index index
	plan  Plan
	// rewritten holds the Refs of resources whose content this plan changes.
	rewritten map[string]bool
	// units holds the names of all units that this plan is about.
	units map[string]bool
	// stale says that a manager has to read unit files although none changes.
	stale []string
}

func (p *planner) step(s host.Step) { p.plan.Steps = append(p.plan.Steps, s) }

func (p *planner) conflict(ref, taskID, format string, args ...any) {
	p.plan.Conflicts = append(p.plan.Conflicts, Conflict{Ref: ref, Task: taskID, Message: fmt.Sprintf(format, args...)})
}

func (p *planner) notice(ref, taskID, format string, args ...any) {
	p.plan.Notices = append(p.plan.Notices, Notice{Ref: ref, Task: taskID, Message: fmt.Sprintf(format, args...)})
}

// unobserved notes a resource that nobody looked at. Guessing could destroy
// something, so it refuses the plan.
func (p *planner) unobserved(ref, taskID string) {
	p.conflict(ref, taskID, "was not looked at before planning; this is a bug of the agent, please report it")
}

// reload plans the one daemon-reload.
func (p *planner) reload() {
	var changed []string
	for _, s := range p.plan.Steps {
		if s.Action == host.WriteUnit || s.Action == host.RemoveUnit {
			changed = append(changed, s.Name)
		}
	}
	for name := range p.units {
		if p.Observed.Units[name].NeedDaemonReload {
			p.stale = append(p.stale, name)
		}
	}
	switch {
	case len(changed) > 0:
		p.step(host.Step{Action: host.DaemonReload, Reason: "unit files change: " + list(changed)})
	case len(p.stale) > 0:
		p.step(host.Step{Action: host.DaemonReload, Drift: true,
			Reason: "systemd has not read the current unit files of " + list(p.stale)})
	}
}

func (p *planner) finish() Plan {
	steps := p.plan.Steps
	// SortSteps is stable and knows action and Ref only.
	slices.SortFunc(steps, func(a, b host.Step) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
	})
	host.SortSteps(steps)
	slices.SortFunc(p.plan.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Task, b.Task), cmp.Compare(a.Message, b.Message))
	})
	slices.SortFunc(p.plan.Notices, func(a, b Notice) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Message, b.Message))
	})
	return p.plan
}

// list joins names, sorted and each once, and stops where a line gets too long
// to read.
func list(names []string) string {
	const most = 4
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
