package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gpuaas/node-agent/test/harness"
)

// agentUnit is the unit that the demo runs the agent as.
const agentUnit = "demo-node-agent.service"

// nodeID is this machine in the demo's fleet; otherNode is one that doesn't exist.
const (
	nodeID    = "gpu-001"
	otherNode = "gpu-002"
)

// world is everything around the story: folders, servers, the systemd manager.
type world struct {
	out  *printer
	bin  string // both binaries
	root string // the project
	dir  string // everything that the demo makes
	port int    // where node_exporter will listen
	// managerDir is the private manager's folder, "" for the user's own.
	managerDir string

	manager  *harness.Manager
	git      *harness.GitServer
	registry *harness.Registry
	units    string // where unit files go

	// signedGood is the newest commit that was published properly.
	signedGood string
}

func (w *world) fleet() string { return filepath.Join(w.dir, "fleet") }
func (w *world) keys() string  { return filepath.Join(w.dir, "keys") }
func (w *world) etc() string   { return filepath.Join(w.dir, "node", "etc") }
func (w *world) packages() string {
	return filepath.Join(w.dir, "node", "packages")
}
func (w *world) agentDir() string { return filepath.Join(w.dir, "node", "agent") }
func (w *world) remote() string   { return w.git.URL + "/fleet.git" }
func (w *world) exporterURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d/metrics", w.port)
}

// newWorld starts the servers and finds or starts a systemd manager. It may
// return a world beside an error: close it.
func newWorld(ctx context.Context, out *printer) (*world, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	w := &world{out: out, root: root, bin: filepath.Join(root, "bin")}
	if w.dir, err = makeFolder(); err != nil {
		return nil, fmt.Errorf("cannot make a folder for the demo: %w", err)
	}
	out.say("everything below lives in %s and is removed at the end", w.dir)
	if err := w.startManager(ctx); err != nil {
		return w, err
	}
	gitRoot := filepath.Join(w.dir, "git")
	if _, err := harness.CreateGitRepo(filepath.Join(gitRoot, "fleet.git")); err != nil {
		return w, err
	}
	if w.git, err = harness.StartGitServer(harness.GitServerOptions{Root: gitRoot}); err != nil {
		return w, err
	}
	out.say("git over HTTP (git http-backend) at %s", w.remote())
	registryDir := filepath.Join(w.dir, "registry")
	if err := os.Mkdir(registryDir, 0o755); err != nil {
		return w, err
	}
	if w.registry, err = harness.StartRegistry(ctx, harness.RegistryOptions{Dir: registryDir}); err != nil {
		return w, err
	}
	out.say("OCI registry (distribution) at %s", w.registry.Host)
	w.port, err = freePort()
	out.say("to repeat a command by hand: export PATH=%s:$PATH; cd %s", w.bin, w.dir)
	return w, err
}

// makeFolder makes the demo's folder. It isn't below /tmp, because the service
// has a /tmp of its own (PrivateTmp=) and couldn't see its own binary there.
func makeFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(cache, "gpuaas-demo-")
}

func (w *world) startManager(ctx context.Context) error {
	if m, err := harness.UserManager(); err == nil {
		w.manager = m
		// The manager reads this folder too, and it is gone at the next logout.
		w.units = filepath.Join(m.RuntimeDir, "systemd", "user")
		w.out.say("systemd: your own user manager")
		if err := w.unitsAreFree(); err != nil {
			w.manager = nil // nothing in it is the demo's, so there is nothing to stop
			return err
		}
		return os.MkdirAll(w.units, 0o755)
	}
	// A short path: that of a socket has at most 107 characters.
	dir, err := os.MkdirTemp("", "gpuaas-sd-")
	if err != nil {
		return err
	}
	w.managerDir = dir
	m, err := harness.StartManager(ctx, dir)
	if err != nil {
		return fmt.Errorf("cannot start a systemd user manager: %w", err)
	}
	w.manager, w.units = m, m.UnitDir()
	w.out.say("systemd: a private user manager, pid %d; systemctl --user reaches it with XDG_RUNTIME_DIR=%s", m.PID, m.RuntimeDir)
	return os.MkdirAll(w.units, 0o755)
}

// unitsAreFree makes sure that the user has no units of the names that the demo
// uses, starts and at its end removes.
func (w *world) unitsAreFree() error {
	for _, unit := range []string{agentUnit, exporterUnit} {
		state, err := w.manager.Systemctl("show", "--property=LoadState", "--value", unit)
		if err != nil {
			return err
		}
		if state != "not-found" {
			return fmt.Errorf("your systemd user manager has a %s already (%s), which the demo would take over: stop it and move its unit file away, then run systemctl --user daemon-reload",
				unit, state)
		}
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// close stops what runs and removes what was made, whatever went wrong before.
func (w *world) close() error {
	var errs []error
	if w.manager != nil {
		w.stopUnits()
		errs = append(errs, w.manager.Stop())
	}
	if w.registry != nil {
		errs = append(errs, w.registry.Stop())
	}
	if w.git != nil {
		errs = append(errs, w.git.Stop())
	}
	if w.managerDir != "" {
		errs = append(errs, os.RemoveAll(w.managerDir))
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// stopUnits takes the demo's units away from the user's own manager; a private
// one takes them with it.
func (w *world) stopUnits() {
	if w.manager.Private() {
		return
	}
	for _, unit := range []string{agentUnit, exporterUnit} {
		_, _ = w.manager.Systemctl("disable", "--now", unit)
		_ = os.Remove(filepath.Join(w.units, unit))
	}
	_, _ = w.manager.Systemctl("daemon-reload")
}

// run prints a command as one would type it in w.dir, runs it, and shows what it said.
func (w *world) run(ctx context.Context, dir string, name string, args ...string) (string, error) {
	out, err := w.try(ctx, dir, name, args...)
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, nil
}

// try is run for commands that may exit with another status than 0.
func (w *world) try(ctx context.Context, dir string, name string, args ...string) (string, error) {
	w.out.command(typed(w.dir, dir, name, args))
	cmd := exec.CommandContext(ctx, name, args...)
	if strings.HasPrefix(name, "gpuaas-") {
		cmd.Path, cmd.Err = filepath.Join(w.bin, name), nil
	}
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), w.manager.Env()...), gitIdentity...)
	// An interrupted command ends with all that it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	w.out.output(out.String())
	return out.String(), err
}

// gitIdentity keeps the demo's commits apart from whatever the user configured.
var gitIdentity = []string{
	"GIT_AUTHOR_NAME=Demo", "GIT_AUTHOR_EMAIL=demo@example.com",
	"GIT_COMMITTER_NAME=Demo", "GIT_COMMITTER_EMAIL=demo@example.com",
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
}

func typed(base, dir, name string, args []string) string {
	words := []string{name}
	if name == "git" && dir != base {
		rel, _ := filepath.Rel(base, dir)
		words = append(words, "-C", rel)
	}
	for _, a := range args {
		if strings.ContainsAny(a, " $\"'*;\n") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// explain shows what an operator would look at when a step failed.
func (w *world) explain() {
	if _, err := os.Stat(w.agentConfig()); err != nil {
		return // it didn't come to an agent
	}
	fmt.Fprintln(os.Stderr, "\n--- the agent's status")
	fmt.Fprintln(os.Stderr, w.statusText())
	fmt.Fprintln(os.Stderr, "--- systemctl status "+exporterUnit)
	status, _ := w.manager.Systemctl("--no-pager", "--full", "status", exporterUnit)
	fmt.Fprintln(os.Stderr, status)
	fmt.Fprintln(os.Stderr, "--- the end of the agent's log")
	if data, err := os.ReadFile(filepath.Join(w.agentDir(), "agent.log")); err == nil {
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintln(os.Stderr, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

func (w *world) statusText() string {
	cmd := exec.Command(filepath.Join(w.bin, "gpuaas-node-agent"), "--user", "status", "--config", w.agentConfig())
	cmd.Env = append(os.Environ(), w.manager.Env()...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func (w *world) lookAround() {
	w.out.chapter(9, "everything is still running; look around from another terminal")
	env := strings.Join(w.manager.Env(), " ")
	for _, line := range []string{
		"export PATH=" + w.bin + ":$PATH " + env,
		"gpuaas-node-agent --user --config " + w.agentConfig() + " status",
		"systemctl --user status " + exporterUnit,
		"curl " + w.exporterURL(),
		"gpuaas-signer -C " + w.fleet() + " inspect",
		"tail -f " + filepath.Join(w.agentDir(), "agent.log"),
		"git -C " + w.fleet() + " log --stat origin/signed",
	} {
		w.out.command(line)
	}
	w.out.say("to stop: Ctrl-C here, or: kill %d", os.Getpid())
}

// wait polls a check until it holds, and fails with its last word after a minute.
func wait(ctx context.Context, check func() error) (time.Duration, error) {
	start := time.Now()
	deadline := start.Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return time.Since(start), nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("not seen within a minute: %w", err)
		}
		select {
		case <-ctx.Done():
			return 0, errors.New("interrupted")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// restartGit starts the git server again where it was.
func (w *world) restartGit(addr string) (err error) {
	w.git, err = harness.StartGitServer(harness.GitServerOptions{Root: filepath.Join(w.dir, "git"), Addr: addr})
	if err == nil {
		w.out.say("the git server is back")
	}
	return err
}
