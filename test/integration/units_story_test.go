package integration_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// A package brings its units: a service with its timer, a socket with the
// service that it starts, a target.
func TestUnitsOfPackage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	binary := filepath.Join(w.node.packages, "story", "current", "bin", "service")
	env := "EnvironmentFile=" + w.node.etc + "/story.env\n"
	w.push(w.packageFolder("story", "1", map[string]string{
		"systemd/tick.service": "[Unit]\nDescription=Tick\n[Service]\nType=oneshot\n" + env + "ExecStart=" + binary + " -once\n",
		"systemd/tick.timer":   "[Timer]\nOnActiveSec=0\nOnUnitActiveSec=1s\nAccuracySec=1ms\n[Install]\nWantedBy=timers.target\n",
		"systemd/web.socket":   fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\n[Install]\nWantedBy=sockets.target\n", w.port),
		"systemd/web.service":  "[Service]\n" + env + "ExecStart=" + binary + "\n",
		"systemd/all.target":   "[Unit]\nDescription=Everything of the story\n[Install]\nWantedBy=default.target\n",
	}))
	installed := func(file string) string {
		return fmt.Sprintf("  - id: unit-%[2]s\n    type: runtime.install_service_unit\n    with: {unit: gpuaas-%[1]s, from: {package: story, file: systemd/%[1]s}}\n",
			file, strings.ReplaceAll(file, ".", "-"))
	}
	running := func(file string) string {
		id := "unit-" + strings.ReplaceAll(file, ".", "-")
		return fmt.Sprintf("  - id: run-%[2]s\n    type: runtime.service_control\n    with: {unit: gpuaas-%[1]s, state: running, enabled: true, restartOn: [%[2]s], health: {stableFor: 100ms}}\n", file, id)
	}
	w.write(profile, fmt.Sprintf(`apiVersion: fleet.gpuaas.dev/v1
kind: Profile
name: story
selector: {matchLabels: {name: %s}}
packages: [story]
tasks:
  - id: env
    type: runtime.write_env_file
    with: {path: %s/story.env, env: {STARTS: %s, VALUE: one}}
`, nodeID, w.node.etc, w.node.starts)+
		installed("tick.service")+installed("tick.timer")+installed("web.socket")+installed("web.service")+installed("all.target")+
		running("tick.timer")+running("web.socket")+running("all.target"))
	w.deliver("units from the package")

	for _, name := range []string{"gpuaas-tick.timer", "gpuaas-web.socket", "gpuaas-all.target"} {
		w.runs(name)
	}
	if out := w.systemctl("list-dependencies", "--plain", "timers.target", "sockets.target", "default.target"); strings.Count(out, "gpuaas-") < 3 {
		t.Errorf("not started at boot:\n%s", out)
	}
	w.eventually("the timer started its service twice", func() error {
		if got := w.starts(); len(got) < 2 {
			return fmt.Errorf("started %v", got)
		}
		return nil
	})
	// The socket's service starts when somebody calls, and runs on afterwards:
	// that is no drift.
	if u := w.unit("gpuaas-web.service"); u["ActiveState"] != "inactive" {
		t.Errorf("runs before anybody called: %v", u)
	}
	w.answers("one")
	if u := w.unit("gpuaas-web.service"); u["ActiveState"] != "active" {
		t.Errorf("called, and doesn't run: %v", u)
	}
	w.hangup()
	w.converged()
	if u := w.unit("gpuaas-web.service"); u["ActiveState"] != "active" {
		t.Errorf("stopped by the agent: %v", u)
	}
	if s := w.exits(0); s.Repairs != 0 {
		t.Errorf("%d repairs of nothing", s.Repairs)
	}

	w.remove(profile)
	w.deliver("no more units")
	for _, name := range []string{"tick.timer", "tick.service", "web.socket", "web.service", "all.target"} {
		w.gone("gpuaas-" + name)
	}
	w.exits(0)
}

// One-shots: each id runs once, whatever happens to the agent; a new id runs again.
func TestActionsRunOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	w.install()
	w.edit(profile, "        ExecStart=", "        ExecReload=/bin/kill -HUP $MAINPID\n        ExecStart=")
	w.must(writeFile(filepath.Join(w.node.config, "guard.yaml"),
		"apiVersion: fleet.gpuaas.dev/v1\nkind: Guard\nbinaries: [/bin/kill]\n"))
	w.restartAgent()
	w.deliver("run the story")
	first := w.runs(service)

	action := func(id, action string) string {
		return fmt.Sprintf("  - id: %s\n    type: runtime.service_control\n    with: {unit: %s, action: %s}\n", id, service, action)
	}
	w.write(profile, w.storyProfileWithReload()+action("restart-it", "restart"))
	w.deliver("restart it")
	second := w.runs(service)
	if second["InvocationID"] == first["InvocationID"] || second["NRestarts"] != "0" {
		t.Errorf("not restarted: %v", second)
	}
	w.write(profile, w.storyProfileWithReload()+action("restart-it", "restart")+action("reload-it", "reload"))
	w.deliver("reload it")
	w.eventually("reloaded", func() error {
		if a := w.answers("one"); a.Reloads != 1 {
			return fmt.Errorf("answer %+v", a)
		}
		return nil
	})
	w.restartAgent()
	w.hangup()
	w.converged()
	if u := w.runs(service); u["InvocationID"] != second["InvocationID"] {
		t.Error("restarted once more")
	}
	if a := w.answers("one"); a.Reloads != 1 {
		t.Errorf("reloaded once more: %+v", a)
	}
	w.write(profile, w.storyProfileWithReload()+action("restart-it-again", "restart"))
	w.deliver("restart it again")
	w.eventually("three starts", func() error {
		if got := w.starts(); len(got) != 3 {
			return fmt.Errorf("started %v", got)
		}
		return nil
	})
	w.exits(0)
}

func (w *world) storyProfileWithReload() string {
	return strings.Replace(w.storyProfile(), "        ExecStart=", "        ExecReload=/bin/kill -HUP $MAINPID\n        ExecStart=", 1)
}
