package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Changes that a node can't or won't carry out leave it exactly as it was, and
// say what to do.
func TestRefusedChangesLeaveTheNodeAlone(t *testing.T) {
	t.Parallel()
	for half, name := range []string{"some", "others"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			changes := w.refusedChanges()
			middle := len(changes) / 2
			w.refuse([][]refusedChange{changes[:middle], changes[middle:]}[half])
		})
	}
}

// refusedChange is a task that is added to the usual profile.
type refusedChange struct {
	name, task string
	reason     v1.Reason
	words      []string
}

func (w *world) outside() string { return filepath.Join(w.dir, "outside.conf") }

func (w *world) refusedChanges() []refusedChange {
	unit := func(name, content string) string {
		return "  - id: other-unit\n    type: runtime.install_service_unit\n    with:\n      unit: " + name + "\n      content: |\n        " +
			strings.ReplaceAll(strings.TrimSpace(content), "\n", "\n        ") + "\n"
	}
	binary := "${packages.story.path}/bin/service"
	return []refusedChange{
		{"a unit that systemd can't load", unit("gpuaas-other.service", "[Service]\nType=oneshot\nRestart=always\nExecStart="+binary),
			v1.ReasonUnitInvalid, []string{"gpuaas-other.service", "Restart="}},
		{"a unit without a program", unit("gpuaas-other.service", "[Unit]\nDescription=Nothing"), v1.ReasonUnitInvalid, []string{"gpuaas-other.service"}},
		{"a shell", unit("gpuaas-other.service", "[Service]\nExecStart=/bin/sh -c 'id'"), v1.ReasonGuard, []string{"gpuaas-other.service:2", "shell"}},
		{"a program outside of packages", unit("gpuaas-other.service", "[Service]\nExecStart=/usr/bin/id"), v1.ReasonGuard, []string{"binaries of guard.yaml"}},
		{"a foreign unit name", unit("ssh.service", "[Service]\nExecStart="+binary), v1.ReasonGuard, []string{"ssh.service", "protected"}},
		{"a unit of another name", unit("web.service", "[Service]\nExecStart="+binary), v1.ReasonGuard, []string{"web.service", "gpuaas-*"}},
		{"the agent's own unit", unit(agentUnit, "[Service]\nExecStart="+binary), v1.ReasonGuard, []string{agentUnit}},
		{"a file outside of the roots", "  - id: outside\n    type: runtime.write_config_file\n    with: {path: " + w.outside() + ", content: x}\n",
			v1.ReasonGuard, []string{w.outside(), w.node.etc}},
		{"a file among the agent's own", "  - id: own\n    type: runtime.write_config_file\n    with: {path: " + w.configFile() + ", content: x}\n",
			v1.ReasonGuard, []string{w.configFile()}},
		{"a foreign service stopped", "  - id: stop\n    type: runtime.service_control\n    with: {unit: dbus.service, state: stopped}\n",
			v1.ReasonGuard, []string{"dbus.service"}},
		{"a service that doesn't exist", "  - id: none\n    type: runtime.service_control\n    with: {unit: gpuaas-none.service, state: running}\n",
			v1.ReasonConflict, []string{"there is no unit gpuaas-none.service"}},
		{"a file below a file", "  - id: below\n    type: runtime.write_config_file\n    with: {path: " + filepath.Join(w.node.etc, "story.env", "x") + ", content: x}\n",
			"", []string{"story.env"}},
	}
}

func (w *world) refuse(changes []refusedChange) {
	t := w.t
	w.startAgent()
	w.install()
	w.deliver("run the story")
	running := w.runs(service)
	list, units := w.list(), w.unitList()
	for _, change := range changes {
		w.write(profile, w.storyProfile()+change.task)
		w.merge(change.name)
		w.hangup()
		generation := w.publishedGeneration()
		var message string
		w.eventually(change.name, func() error {
			s, err := w.peek()
			if err != nil {
				return err
			}
			if s.DesiredGeneration != generation || s.LastError == nil || s.Phase != "Held" {
				return fmt.Errorf("%+v", s)
			}
			message = s.LastError.Message
			if change.reason != "" && s.LastError.Category != change.reason {
				t.Errorf("%s: reason %s, want %s: %s", change.name, s.LastError.Category, change.reason, message)
			}
			return nil
		})
		t.Logf("%s: %s", change.name, message)
		w.says(message, change.words...)
		w.exits(3)
		if d := withoutTimes(list).diff(withoutTimes(w.list())); d != "" {
			t.Errorf("%s: the node changed:\n%s", change.name, d)
		}
		w.sameUnits(units, w.unitList())
		if u := w.runs(service); u["InvocationID"] != running["InvocationID"] {
			t.Errorf("%s: the service was restarted", change.name)
			running = u
		}
		w.missing(w.outside())
	}

	w.write(profile, strings.Replace(w.storyProfile(), "VALUE: one", "VALUE: two", 1))
	w.deliver("a good change")
	w.answers("two")
	w.exits(0)
}

// What people write wrong never gets signed: every mistake has its place and
// what is allowed.
func TestMistakesAreNotSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{bare: true})
	w.install()
	w.merge("good")
	good := w.published()
	for name, mistake := range map[string]struct {
		old, new string
		words    []string
	}{
		"unknown kind":     {"type: runtime.write_env_file", "type: runtime.write_envfile", []string{profile + ":", "runtime.write_env_file"}},
		"unknown field":    {"      mode: \"0600\"", "      moed: \"0600\"", []string{profile + ":", "moed", "mode"}},
		"duplicate key":    {"        VALUE: one", "        VALUE: one\n        VALUE: two", []string{profile + ":", "VALUE"}},
		"two documents":    {"tasks:\n", "tasks: []\n---\ntasks:\n", []string{profile + ":", "document"}},
		"missing value":    {"VALUE: one", "VALUE: ${values.nowhere}", []string{profile + ":", "nowhere"}},
		"missing package":  {"packages: [story]", "packages: [storry]", []string{profile + ":", "storry"}},
		"relative path":    {"path: " + w.node.etc + "/story.env", "path: story.env", []string{profile + ":", "path"}},
		"unknown restarts": {"restartOn: [package/story, env, unit]", "restartOn: [nothing]", []string{profile + ":", "nothing"}},
	} {
		w.write(profile, w.storyProfile())
		w.edit(profile, mistake.old, mistake.new)
		w.commit(name)
		for _, command := range [][]string{{"validate"}, {"sign", "--keys", w.keys}} {
			r := w.command(w.fleet, filepath.Join(built, "gpuaas-signer"), command...)
			if r.code != 1 {
				t.Errorf("%s: %s exits %d\n%s%s", name, command[0], r.code, r.stdout, r.stderr)
			}
			w.says(r.stderr, mistake.words...)
		}
		if w.published() != good {
			t.Errorf("%s: published", name)
		}
	}
}

// A node that was set up wrongly says what to do.
func TestBadSetUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{bare: true})
	w.install()
	w.merge("run the story")
	before := w.list()
	root := filepath.Join(w.node.config, "trust", "root.json")
	rootData, err := os.ReadFile(root)
	w.must(err)
	config, err := os.ReadFile(w.configFile())
	w.must(err)
	for name, set := range map[string]struct {
		do    func()
		words []string
	}{
		"no systemd":        {func() {}, []string{"SystemdUnreachable", "systemd"}},
		"no bootstrap root": {func() { w.must(os.Remove(root)) }, []string{"BootstrapRoot", "trust/root.json"}},
		"another's root":    {func() { w.must(writeFile(root, "{}")) }, []string{"BootstrapRoot"}},
		"unknown field":     {func() { w.must(appendTo(w.configFile(), "pol: {}\n")) }, []string{"config.yaml:", "pol", "poll"}},
		"not in the fleet":  {func() { w.must(writeFile(w.configFile(), strings.Replace(string(config), nodeID, "gpu-999", 1))) }, []string{"NoManifest", "gpu-999"}},
		"another branch": {func() {
			w.must(writeFile(w.configFile(), strings.Replace(string(config), "source: {", "source: {branch: none, ", 1)))
		}, []string{"SourceEmpty", "none"}},
		"state in a file": {func() { w.must(writeFile(w.node.state, "")) }, []string{w.node.state}},
		"bad guard":       {func() { w.must(writeFile(filepath.Join(w.node.config, "guard.yaml"), "kind: Guard\n")) }, []string{"guard.yaml:", "apiVersion"}},
		"state of a newer one": {func() {
			w.must(os.MkdirAll(w.node.state, 0o700))
			w.must(writeFile(filepath.Join(w.node.state, "journal.json"), `{"version": 99}`))
		}, []string{"newer"}},
	} {
		w.must(os.RemoveAll(w.node.state))
		w.must(os.RemoveAll(filepath.Join(w.node.config, "guard.yaml")))
		w.must(os.WriteFile(root, rootData, 0o600))
		w.must(os.WriteFile(w.configFile(), config, 0o600))
		set.do()
		r := w.agent("once")
		want := 1
		if name == "another branch" {
			want = 4
		}
		if r.code != want {
			t.Errorf("%s: once exits %d, want %d", name, r.code, want)
		}
		_, message, _ := strings.Cut(r.stderr, "gpuaas-node-agent: ")
		t.Logf("%s: %s", name, strings.TrimSpace(message))
		w.says(message, set.words...)
		after := w.list()
		for path := range after {
			// What is staged before systemd is needed changes nothing.
			if strings.HasPrefix(path, w.node.packages+"/") {
				delete(after, path)
			}
		}
		w.same(before, after)
	}
}
