package plan_test

import (
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/schema/task"
)

const unitDir = "/etc/systemd/system"

var self = plan.Identity{Owner: "root", Group: "root"}

// sim is a host that does what steps say, and nothing else. It stands for apply,
// store and systemd together, and keeps their contracts: ownership is recorded
// before something is made, a restart is recorded as pending before it is done.
type sim struct {
	t         testing.TB
	inv       host.Inventory
	files     map[string]host.FileState
	packages  map[string]host.PackageState
	units     map[string]host.FileState // unit files in unitDir
	loaded    map[string]string         // digest of the unit file that the manager read
	active    map[string]bool
	enabled   map[string]bool
	invoked   map[string]string
	startedOn map[string]string // what a service found when it was started
	dropIns   map[string][]string
	fragment  map[string]string // of units that are loaded from elsewhere
	counter   int
	ran       []string // "restart gpuaas-a.service"
	// services are those of the manifest that is being applied; a start looks
	// at their restartOn.
	services map[string]task.Service
}

func newSim(t testing.TB) *sim {
	return &sim{
		t: t, inv: host.NewInventory(),
		files: map[string]host.FileState{}, packages: map[string]host.PackageState{}, units: map[string]host.FileState{},
		loaded: map[string]string{}, active: map[string]bool{}, enabled: map[string]bool{}, invoked: map[string]string{},
		startedOn: map[string]string{}, dropIns: map[string][]string{}, fragment: map[string]string{},
		services: map[string]task.Service{},
	}
}

// observe looks at what the manifest or the inventory mentions.
func (s *sim) observe(resources []task.Resource) host.Observed {
	o := host.Observed{
		Packages: map[string]host.PackageState{}, Files: map[string]host.FileState{}, Units: map[string]host.UnitState{},
	}
	for _, r := range resources {
		switch r := r.(type) {
		case task.Package:
			o.Packages[r.Name] = s.pkg(r.Name)
		case task.File:
			o.Files[r.Path] = s.files[r.Path]
		case task.Unit:
			o.Units[r.Name] = s.unit(r.Name)
		case task.Service:
			o.Units[r.Unit] = s.unit(r.Unit)
		}
	}
	for name := range s.inv.Packages {
		o.Packages[name] = s.pkg(name)
	}
	for path := range s.inv.Files {
		o.Files[path] = s.files[path]
	}
	for name := range s.inv.Units {
		o.Units[name] = s.unit(name)
	}
	for name := range s.inv.Services {
		o.Units[name] = s.unit(name)
	}
	return o
}

func (s *sim) pkg(name string) host.PackageState {
	p := s.packages[name]
	return host.PackageState{Current: p.Current, Versions: maps.Clone(p.Versions)}
}

func (s *sim) unit(name string) host.UnitState {
	u := host.UnitState{File: s.units[name], LoadState: "not-found", ActiveState: "inactive", DropIns: s.dropIns[name]}
	switch {
	case u.File.Exists && u.File.Kind == "symlink":
		u.LoadState, u.UnitFileState, u.Fragment = "masked", "masked", unitDir+"/"+name
	case u.File.Exists:
		u.LoadState, u.UnitFileState, u.Fragment = "loaded", "disabled", unitDir+"/"+name
	case s.fragment[name] != "":
		u.LoadState, u.UnitFileState, u.Fragment = "loaded", "disabled", s.fragment[name]
	}
	if s.enabled[name] && u.LoadState == "loaded" {
		u.UnitFileState = "enabled"
	}
	if s.active[name] {
		u.ActiveState, u.InvocationID, u.MainPID = "active", s.invoked[name], 1000
		u.NeedDaemonReload = s.loaded[name] != u.File.Digest
	}
	return u
}

// regular is a file as apply writes it.
func regular(content string, mode fs.FileMode, owner string) host.FileState {
	if owner == "" {
		owner = self.Owner
	}
	f := host.FileState{Exists: true, Kind: "file", Digest: digest(content), Size: int64(len(content)), Owner: owner, Group: self.Group}
	f.Mode = mode
	return f
}

func (s *sim) apply(steps []host.Step) {
	for _, step := range steps {
		s.record(step)
		s.do(step)
		s.done(step)
	}
}

// record is what is saved before a step is done.
func (s *sim) record(step host.Step) {
	switch step.Action {
	case host.WriteFile:
		if _, ok := s.inv.Files[step.Name]; !ok {
			s.inv.Files[step.Name] = host.OwnedFile{}
		}
	case host.WriteUnit:
		if _, ok := s.inv.Units[step.Name]; !ok {
			s.inv.Units[step.Name] = host.OwnedUnit{}
		}
	case host.StagePackage, host.ActivatePackage:
		if _, ok := s.inv.Packages[step.Name]; !ok {
			s.inv.Packages[step.Name] = host.OwnedPackage{}
		}
	case host.EnableUnit:
		own := s.inv.Services[step.Name]
		own.Enabled = true
		s.inv.Services[step.Name] = own
	case host.StartService, host.RestartService:
		own := s.inv.Services[step.Name]
		own.Pending = &host.PendingRestart{Inputs: step.Inputs, Invocation: step.Invocation}
		s.inv.Services[step.Name] = own
	}
}

// do changes the host.
func (s *sim) do(step host.Step) {
	name := step.Name
	switch step.Action {
	case host.StagePackage:
		p := s.pkg(name)
		if p.Versions == nil {
			p.Versions = map[string]bool{}
		}
		p.Versions[step.Package.Digest] = true
		s.packages[name] = p
	case host.ActivatePackage:
		if !s.packages[name].Versions[step.Package.Digest] {
			s.t.Fatalf("activating %s %s, which is not staged", name, step.Package.Digest)
		}
		p := s.pkg(name)
		p.Current = step.Package.Digest
		s.packages[name] = p
	case host.WriteFile:
		s.files[name] = regular(string(step.File.Content), step.File.Mode, step.File.Owner)
	case host.WriteUnit:
		if step.Unit.Content == nil {
			s.t.Fatalf("writing %s without content", name)
		}
		s.units[name] = regular(string(step.Unit.Content), host.UnitMode, "")
	case host.DaemonReload:
		for unit := range s.loaded {
			s.loaded[unit] = s.units[unit].Digest
		}
	case host.EnableUnit:
		s.enabled[name] = true
	case host.DisableUnit:
		// systemd ignores masked units here, and leaves their links.
		if s.units[name].Kind != "symlink" {
			delete(s.enabled, name)
		}
	case host.StopService:
		delete(s.active, name)
	case host.StartService, host.RestartService, host.RunAction:
		if step.Action == host.RunAction && step.Service.Action == task.Reload {
			s.ran = append(s.ran, "reload "+name)
			return
		}
		s.start(name, step.Action.String())
	case host.RemoveFile:
		delete(s.files, name)
	case host.RemoveUnit:
		if s.active[name] {
			s.t.Fatalf("removing %s, which is active", name)
		}
		delete(s.units, name)
	case host.RemovePackage:
		delete(s.packages, name)
	}
}

func (s *sim) start(name, how string) {
	if f := s.units[name]; (!f.Exists || f.Kind != "file") && s.fragment[name] == "" {
		s.t.Fatalf("starting %s, which has no unit file", name)
	}
	if s.active[name] && s.loaded[name] != s.units[name].Digest {
		s.t.Fatalf("%s of %s without daemon-reload", how, name)
	}
	s.counter++
	s.active[name], s.invoked[name] = true, fmt.Sprintf("%032x", s.counter)
	s.loaded[name] = s.units[name].Digest
	s.startedOn[name] = s.inputsOnHost(s.services[name])
	s.ran = append(s.ran, how+" "+name)
}

// inputsOnHost is what a process sees that starts now.
func (s *sim) inputsOnHost(svc task.Service) string {
	var b strings.Builder
	for _, ref := range svc.RestartOn {
		kind, name, _ := strings.Cut(ref, "/")
		switch kind {
		case "package":
			b.WriteString(ref + "=" + s.packages[name].Current + "\n")
		case "file":
			f := s.files[name]
			fmt.Fprintf(&b, "%s=%s %o %s\n", ref, f.Digest, f.Mode, f.Owner)
		case "unit":
			b.WriteString(ref + "=" + s.units[name].Digest + "\n")
		}
	}
	return b.String()
}

// done is what is saved after a step.
func (s *sim) done(step host.Step) {
	name := step.Name
	switch step.Action {
	case host.WriteFile:
		f := step.File
		s.inv.Files[name] = host.OwnedFile{Digest: digest(string(f.Content)), Mode: f.Mode, Owner: f.Owner, Group: f.Group}
	case host.WriteUnit:
		s.inv.Units[name] = host.OwnedUnit{Digest: digest(string(step.Unit.Content))}
	case host.ActivatePackage:
		own := s.inv.Packages[name]
		if own.Digest != step.Package.Digest {
			own.Digest, own.Previous = step.Package.Digest, own.Digest
		}
		s.inv.Packages[name] = own
	case host.StartService, host.RestartService, host.AcceptInputs:
		own := s.inv.Services[name]
		own.Inputs, own.Pending = step.Inputs, nil
		s.inv.Services[name] = own
	case host.StopService:
		if own, ok := s.inv.Services[name]; ok {
			own.Inputs, own.Pending = "", nil
			s.inv.Services[name] = own
		}
	case host.DisableUnit:
		if own, ok := s.inv.Services[name]; ok {
			own.Enabled = false
			s.inv.Services[name] = own
		}
	case host.RunAction:
		s.inv.Actions[step.Task] = time.Unix(0, 0)
	case host.RemoveFile:
		delete(s.inv.Files, name)
	case host.RemoveUnit:
		delete(s.inv.Units, name)
	case host.RemovePackage:
		delete(s.inv.Packages, name)
	case host.ForgetResource:
		kind, _, _ := strings.Cut(step.Ref, "/")
		switch kind {
		case "file":
			delete(s.inv.Files, name)
		case "unit":
			delete(s.inv.Units, name)
		case "package":
			delete(s.inv.Packages, name)
		case "service":
			delete(s.inv.Services, name)
		}
	}
}

func (s *sim) plan(resources []task.Resource) plan.Plan {
	return plan.Compute(plan.Input{
		Resources: resources, Observed: s.observe(resources), Inventory: s.inv.Clone(), Self: self, UnitDir: unitDir,
	})
}

// prepare plans, stages and resolves as the loop does, and returns the final
// resources and plan.
func (s *sim) prepare(resources []task.Resource) ([]task.Resource, plan.Plan) {
	s.services = map[string]task.Service{}
	for _, r := range resources {
		if svc, ok := r.(task.Service); ok {
			s.services[svc.Unit] = svc
		}
	}
	resources = s.resolve(resources)
	p := s.plan(resources)
	if len(p.Conflicts) == 0 && len(p.Staging()) > 0 {
		s.apply(p.Staging())
		resources = s.resolve(resources)
		p = s.plan(resources)
	}
	return resources, p
}

// converge does one pass and requires that nothing is left to do.
func (s *sim) converge(resources []task.Resource) plan.Plan {
	s.t.Helper()
	resources, p := s.prepare(resources)
	if err := p.Err(); err != nil {
		s.t.Fatalf("unexpected conflict: %v", err)
	}
	if !p.Resolved() {
		s.t.Fatalf("not resolved after staging:\n%s", show(p))
	}
	s.apply(p.Steps)
	if again := s.plan(resources); !again.Converged() {
		s.t.Fatalf("not converged after one pass; first plan:\n%sthen:\n%s", show(p), show(again))
	}
	return p
}

// resolve reads the content of units from staged packages.
func (s *sim) resolve(resources []task.Resource) []task.Resource {
	digests := map[string]string{}
	for _, r := range resources {
		if p, ok := r.(task.Package); ok {
			digests[p.Name] = p.Digest
		}
	}
	out := make([]task.Resource, len(resources))
	for i, r := range resources {
		if u, ok := r.(task.Unit); ok && u.Package != "" && s.packages[u.Package].Versions[digests[u.Package]] {
			u.Content = []byte(unitText(u.Package + digests[u.Package]))
			r = u
		}
		out[i] = r
	}
	return out
}

func unitText(what string) string {
	return "[Service]\n# " + what + "\nExecStart=/opt/p/current/x\n[Install]\nWantedBy=multi-user.target\n"
}

// show prints a plan as golden text.
func show(p plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		drift := ""
		if s.Drift {
			drift = " [drift]"
		}
		fmt.Fprintf(&b, "%s %s: %s%s\n", s.Action, s.Ref, s.Reason, drift)
	}
	for _, c := range p.Conflicts {
		fmt.Fprintf(&b, "CONFLICT %s: %s\n", c.Ref, c.Message)
	}
	for _, n := range p.Notices {
		fmt.Fprintf(&b, "NOTICE %s: %s\n", n.Ref, n.Message)
	}
	return b.String()
}
