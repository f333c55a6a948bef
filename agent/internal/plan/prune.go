package plan

import (
	"maps"
	"slices"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
)

const (
	left     = "no longer in the manifest"
	leftGone = "no longer in the manifest, and gone from the node already"
)

// prune plans the removal of what the agent owns and the manifest doesn't have
// any more. One-shots that ran are remembered for ever: an id runs once.
func (p *planner) prune() {
	names := map[string]bool{}
	for name := range p.Inventory.Units {
		names[name] = true
	}
	for name := range p.Inventory.Services {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p.pruneUnit(name)
	}
	for _, path := range slices.Sorted(maps.Keys(p.Inventory.Files)) {
		if _, wanted := p.index.byRef["file/"+path]; !wanted {
			p.pruneFile(path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Inventory.Packages)) {
		if _, wanted := p.index.byRef[task.PackageRef(name)]; !wanted {
			p.prunePackage(name)
		}
	}
}

// pruneUnit lets go of a unit file, of the state of a service, or of both.
//
// A unit whose file isn't the agent's keeps running when its service_control
// leaves: the agent held its state, but it is somebody else's service.
func (p *planner) pruneUnit(name string) {
	_, ownsFile := p.Inventory.Units[name]
	held, holds := p.Inventory.Services[name]
	_, wantsUnit := p.index.byRef["unit/"+name]
	svc, wantsService := p.index.byRef["service/"+name].(task.Service)
	removes, releases := ownsFile && !wantsUnit, holds && !wantsService
	if !removes && !releases {
		return
	}
	ref := "service/" + name
	obs, looked := p.Observed.Units[name]
	if !looked {
		p.unobserved(ref, "")
		return
	}
	p.units[name] = true
	ours := p.ownsUnit(name)
	if obs.Active() && ours && !wantsService {
		p.step(host.Step{Action: host.StopService, Ref: ref, Name: name, Reason: left})
	}
	disabling := wantsService && svc.Enabled != nil && !*svc.Enabled
	// Without its file nobody can tell whether a unit is enabled.
	atBoot := linked(obs, held) || removes && !obs.File.Exists
	if atBoot && !disabling && (ours || held.Enabled) {
		p.step(host.Step{Action: host.DisableUnit, Ref: ref, Name: name, Reason: left})
	}
	if releases {
		p.step(host.Step{Action: host.ForgetResource, Ref: ref, Name: name, Reason: left})
	}
	if removes {
		p.removal(host.RemoveUnit, "unit/"+name, name, obs.File)
	}
}

func (p *planner) pruneFile(path string) {
	ref := "file/" + path
	obs, looked := p.Observed.Files[path]
	if !looked {
		p.unobserved(ref, "")
		return
	}
	p.removal(host.RemoveFile, ref, path, obs)
}

// removal removes an owned path, unless it is gone.
func (p *planner) removal(action host.Action, ref, name string, obs host.FileState) {
	s := host.Step{Action: action, Ref: ref, Name: name, Reason: left}
	switch {
	case obs.Err != "":
		p.conflict(ref, "", "is no longer in the manifest, but cannot be looked at: %s", obs.Err)
		return
	case !obs.Exists:
		s.Action, s.Reason = host.ForgetResource, leftGone
	case obs.Kind == "dir":
		s.Action, s.Reason = host.ForgetResource, "no longer in the manifest; a folder is in its place, which stays"
	}
	p.step(s)
}

func (p *planner) prunePackage(name string) {
	ref := task.PackageRef(name)
	obs, looked := p.Observed.Packages[name]
	if !looked {
		p.unobserved(ref, "")
		return
	}
	s := host.Step{Action: host.RemovePackage, Ref: ref, Name: name, Reason: left}
	if obs.Current == "" && len(obs.Versions) == 0 {
		s.Action, s.Reason = host.ForgetResource, leftGone
	}
	p.step(s)
}
