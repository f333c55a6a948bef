package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
)

// pkg plans the staging and activation of a package. A package that is only
// staged keeps whatever link it has. Old versions are the store's business.
func (p *planner) pkg(want *task.Package) {
	ref := want.Ref()
	obs, looked := p.Observed.Packages[want.Name]
	if !looked {
		p.unobserved(ref, want.Source)
		return
	}
	own, owned := p.Inventory.Packages[want.Name]
	// What was once active and is the wanted digest still, can only be missing
	// because the host changed.
	lost := owned && own.Digest == want.Digest
	step := host.Step{Ref: ref, Task: want.Source, Package: want, Name: want.Name}

	stage := step
	stage.Action = host.StagePackage
	switch {
	case !obs.Versions[want.Digest] && lost:
		stage.Reason, stage.Drift = "the installed version "+short(want.Digest)+" is gone", true
		p.step(stage)
	case !obs.Versions[want.Digest]:
		stage.Reason = "version " + short(want.Digest) + " is not on the node yet"
		p.step(stage)
	case !want.Activate && !owned:
		stage.Reason = "is on the node already; becomes the agent's"
		p.step(stage)
	}
	if !want.Activate {
		return
	}

	activate := step
	activate.Action = host.ActivatePackage
	switch {
	case obs.Current == want.Digest && lost:
		return
	case obs.Current == want.Digest:
		activate.Reason = "is active already; recorded anew"
	case obs.Current == "":
		activate.Reason, activate.Drift = "no version is active", lost
	default:
		activate.Reason, activate.Drift = "active is "+short(obs.Current)+", wanted "+short(want.Digest), lost
	}
	p.rewritten[ref] = obs.Current != want.Digest
	p.step(activate)
}

// file plans one file.
func (p *planner) file(want *task.File) {
	ref := want.Ref()
	obs, looked := p.Observed.Files[want.Path]
	if !looked {
		p.unobserved(ref, want.Source)
		return
	}
	own, owned := p.Inventory.Files[want.Path]
	digest := p.index.digest(ref, want.Content)
	// An inventory that doesn't tell mode and owner is taken to agree.
	same := owned && own.Digest == digest &&
		(own.Mode == 0 || own.Mode == want.Mode && own.Owner == want.Owner && own.Group == want.Group)
	v := compare(
		wanted{digest: digest, mode: want.Mode, owner: want.Owner, group: want.Group, adopt: want.Adopt},
		obs, record{owned: owned, digest: own.Digest, same: same}, p.Self)
	p.apply(v, host.Step{Action: host.WriteFile, Ref: ref, Task: want.Source, File: want, Name: want.Path})
}

// apply turns a verdict into a step or a conflict.
func (p *planner) apply(v verdict, s host.Step) {
	switch {
	case v.conflict != "":
		p.conflict(s.Ref, s.Task, "%s", v.conflict)
	case v.write:
		s.Reason, s.Drift = v.reason, v.drift
		p.rewritten[s.Ref] = v.changes
		p.step(s)
	}
}

// unit plans one unit file.
func (p *planner) unit(want *task.Unit) {
	ref := want.Ref()
	obs, looked := p.Observed.Units[want.Name]
	if !looked {
		p.unobserved(ref, want.Source)
		return
	}
	p.units[want.Name] = true
	own, owned := p.Inventory.Units[want.Name]
	if p.hidden(want, obs, owned) {
		return
	}
	p.dropIns(want, obs)
	step := host.Step{Action: host.WriteUnit, Ref: ref, Task: want.Source, Unit: want, Name: want.Name}
	if pending(want) {
		p.pendingUnit(want, step)
		return
	}
	digest := p.index.digest(ref, want.Content)
	v := compare(wanted{digest: digest, mode: host.UnitMode, adopt: want.Adopt},
		obs.File, record{owned: owned, digest: own.Digest, same: owned && own.Digest == digest}, p.Self)
	if !v.write && v.conflict == "" && p.elsewhere(obs.Fragment) {
		// Our file is right but systemd still has the other one.
		p.stale = append(p.stale, want.Name)
	}
	if !v.write && v.conflict == "" && obs.LoadState == "masked" {
		p.stale = append(p.stale, want.Name)
	}
	p.apply(v, step)
}

// pending reports whether a unit's content is in a package and not read yet.
func pending(u *task.Unit) bool { return u.Content == nil && u.Package != "" }

func (p *planner) pendingUnit(want *task.Unit, step host.Step) {
	from := fmt.Sprintf("content comes from package %s (%s)", want.Package, want.File)
	source, ok := p.index.byRef[task.PackageRef(want.Package)].(task.Package)
	if !ok {
		p.conflict(step.Ref, step.Task, "%s, which is not in the manifest", from)
		return
	}
	step.Reason = from + ", not read yet"
	if !p.Observed.Packages[want.Package].Versions[source.Digest] {
		step.Reason = from + ", not fetched yet"
	}
	p.step(step)
}

// elsewhere reports whether a unit was loaded from outside our folder.
func (p *planner) elsewhere(fragment string) bool {
	dir, _ := path.Split(fragment)
	return dir != "" && p.UnitDir != "" && strings.TrimSuffix(dir, "/") != strings.TrimSuffix(p.UnitDir, "/")
}

// above names the folders that systemd prefers to the one for an
// administrator's unit files (systemd.unit(5), "Unit File Load Path").
var above = map[string]bool{"system.control": true, "user.control": true, "transient": true, "generator.early": true}

// hidden notes units that are loaded from, or masked at, another place.
func (p *planner) hidden(want *task.Unit, obs host.UnitState, owned bool) bool {
	ref := want.Ref()
	switch {
	case p.elsewhere(obs.Fragment) && above[path.Base(path.Dir(obs.Fragment))]:
		p.conflict(ref, want.Source, "%s would hide the unit file that the agent writes; remove it (systemctl revert or unmask %s)",
			obs.Fragment, want.Name)
	case strings.HasPrefix(obs.UnitFileState, "masked") && obs.File.Kind == "file":
		// The state of unit files is read from disk: something else than our
		// own, good file masks the unit.
		p.conflict(ref, want.Source, "is masked on this node; run systemctl unmask %s", want.Name)
	case p.elsewhere(obs.Fragment) && !owned && !want.Adopt:
		p.conflict(ref, want.Source,
			"a unit of that name is installed as %s and is not the agent's; set adopt: true on the task to override it, or choose another name",
			obs.Fragment)
	default:
		return false
	}
	return true
}

// dropIns tells of drop-ins that change this very unit. Those for all units of a
// type come with distributions and are nobody's drift.
func (p *planner) dropIns(want *task.Unit, obs host.UnitState) {
	var foreign []string
	for _, d := range obs.DropIns {
		if path.Base(path.Dir(d)) != strings.TrimPrefix(path.Ext(want.Name), ".")+".d" {
			foreign = append(foreign, d)
		}
	}
	if len(foreign) > 0 {
		p.notice(want.Ref(), want.Source, "drop-ins change this unit and are not the agent's: %s", list(foreign))
	}
}
