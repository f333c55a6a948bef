package apply_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/schema/task"
)

// node is a fake host with the parts around apply that a crash has to get past.
type node struct {
	*fake
	roots string
	saved []byte // the inventory, as the journal has it
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{fake: newFake(t), roots: t.TempDir(), saved: []byte("{}")}
	n.envFile = filepath.Join(n.roots, "sub", "svc.env")
	return n
}

// once observes, plans and applies. It reports whether anything was to be done,
// and whether the agent was killed.
func (n *node) once(t *testing.T, resources []task.Resource) (steps []host.Step, killed bool) {
	t.Helper()
	var inv host.Inventory
	if err := json.Unmarshal(n.saved, &inv); err != nil {
		t.Fatal(err)
	}
	o := observe.Observer{Units: n, Packages: n, UnitDir: n.dir}
	observed, err := o.Observe(t.Context(), resources, inv)
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Compute(plan.Input{Resources: resources, Observed: observed, Inventory: inv, UnitDir: n.dir})
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	a := apply.Applier{Systemd: n, Packages: n, Stager: n, UnitDir: n.dir, FileRoots: []string{n.roots}, Now: time.Now}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			killed = true
		}
	}()
	err = a.Run(t.Context(), p.Steps, &inv, func(inv host.Inventory) error {
		n.point()
		data, err := json.Marshal(inv)
		n.saved = data
		n.point()
		return err
	}, func(apply.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	return p.Steps, false
}

// converge runs without a crash until there is nothing left to do.
func (n *node) converge(t *testing.T, resources []task.Resource) {
	t.Helper()
	n.left = -1
	var steps []host.Step
	for range 5 {
		if steps, _ = n.once(t, resources); len(steps) == 0 {
			return
		}
	}
	t.Fatalf("does not converge: %+v", steps)
}

func manifest(env, pkg string, more ...task.Resource) func(*node) []task.Resource {
	return func(n *node) []task.Resource {
		yes := true
		return append([]task.Resource{
			task.Package{Name: "p", Digest: pkg, Activate: true},
			task.File{Path: n.envFile, Content: []byte(env), Mode: 0o640, Source: "env"},
			task.Unit{Name: "gpuaas-svc.service", Content: []byte("[Service]\nExecStart=/x\n[Install]\nWantedBy=default.target\n"), Source: "unit"},
			task.Service{Unit: "gpuaas-svc.service", State: task.Running, Enabled: &yes, Source: "svc",
				RestartOn: []string{"package/p", "file/" + n.envFile, "unit/gpuaas-svc.service"}},
		}, more...)
	}
}

// The agent is killed at every point of every change, started again, and must
// end where it would have ended without that, having restarted the service once.
func TestKilledAnywhere(t *testing.T) {
	restart := task.Service{Unit: "gpuaas-svc.service", Action: task.Restart, Source: "now"}
	for _, test := range []struct {
		name         string
		before, then func(*node) []task.Resource
		restarts     int
		gone         bool
	}{
		{name: "first install", then: manifest("A=1\n", "sha256:1")},
		{name: "new value", before: manifest("A=1\n", "sha256:1"), then: manifest("A=2\n", "sha256:1"), restarts: 1},
		{name: "new package and value", before: manifest("A=1\n", "sha256:1"), then: manifest("A=2\n", "sha256:2"), restarts: 1},
		{name: "removal", before: manifest("A=1\n", "sha256:1"), then: func(*node) []task.Resource { return nil }, gone: true},
		{name: "one-shot restart", before: manifest("A=1\n", "sha256:1"), then: manifest("A=1\n", "sha256:1", restart), restarts: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			points := 0
			for k := 0; ; k++ {
				n := newNode(t)
				if test.before != nil {
					n.converge(t, test.before(n))
				}
				n.restarts = map[string]int{}
				starts := n.starts
				n.left = k
				resources := test.then(n)
				_, killed := n.once(t, resources)
				n.converge(t, resources)
				n.verify(t, k, resources, test.gone)
				if got := n.restarts["gpuaas-svc.service"]; got != test.restarts {
					t.Errorf("killed at point %d: restarted %d times, want %d", k, got, test.restarts)
				}
				if test.before == nil && n.starts-starts != 1 {
					t.Errorf("killed at point %d: started %d times", k, n.starts-starts)
				}
				if !killed {
					break
				}
				points++
			}
			if points < 5 {
				t.Errorf("only %d points", points)
			}
		})
	}
}

func (n *node) verify(t *testing.T, k int, resources []task.Resource, gone bool) {
	t.Helper()
	var inv host.Inventory
	if err := json.Unmarshal(n.saved, &inv); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(n.envFile)
	if gone {
		left, readErr := os.ReadDir(n.dir)
		if err == nil || len(n.running)+len(n.enabled)+len(n.current)+len(n.staged)+len(left) > 0 || readErr != nil {
			t.Errorf("killed at point %d: left are %v, %v, %v, %v, %v", k, n.running, n.enabled, n.current, n.staged, left)
		}
		if len(inv.Files)+len(inv.Units)+len(inv.Services)+len(inv.Packages) > 0 {
			t.Errorf("killed at point %d: inventory %s", k, n.saved)
		}
		return
	}
	want := string(resources[1].(task.File).Content)
	if err != nil || string(env) != want || n.read["gpuaas-svc.service"] != want || !n.enabled["gpuaas-svc.service"] ||
		n.running["gpuaas-svc.service"] == 0 || n.current["p"] != resources[0].(task.Package).Digest {
		t.Errorf("killed at point %d: file %q (%v), %+v", k, env, err, n.fake)
	}
	if own := inv.Services["gpuaas-svc.service"]; own.Pending != nil || len(inv.PendingActions) > 0 {
		t.Errorf("killed at point %d: pending in %s", k, n.saved)
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("killed at point %d: the unit folder holds %v, %v", k, entries, err)
	}
}
