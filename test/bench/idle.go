package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gpuaas/node-agent/test/harness"
)

// idleSuite watches a converged agent for a minute with its default intervals.
// The peer is the least that somebody would write by hand: a shell loop that asks
// git for the branch as often.
func idleSuite(ctx context.Context, env environment, table *Table) (err error) {
	w, err := newIdleWorld(ctx, filepath.Join(env.dir, "idle"), env)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return err
	}
	env.progress("an agent at rest, and a shell loop, for a minute each at once")
	agent, err := w.start(ctx, env.agent, "--user", "--config", w.config, "run")
	if err != nil {
		return err
	}
	if err := w.converged(ctx); err != nil {
		return err
	}
	loop, err := w.start(ctx, "bash", "-c", "while sleep 30; do git ls-remote "+w.git.URL+"/fleet.git refs/heads/signed >/dev/null; done")
	if err != nil {
		return err
	}
	// The first pass is over; let the first poll without news go by too.
	if err := sleep(ctx, 40*time.Second); err != nil {
		return err
	}
	before, beforeLoop, err := both(agent, loop)
	if err != nil {
		return err
	}
	if err := sleep(ctx, time.Minute); err != nil {
		return err
	}
	after, afterLoop, err := both(agent, loop)
	if err != nil {
		return err
	}
	const peer = "shell loop over git ls-remote"
	table.Add(Row{What: "agent at rest: RSS", Ours: Size(after.rss), Peer: Size(afterLoop.rss), PeerName: peer, Target: Size(15 << 20)})
	table.Add(Row{What: "agent at rest: CPU a minute", Ours: Time(after.cpu - before.cpu), Peer: Time(afterLoop.cpu - beforeLoop.cpu), PeerName: peer, Target: Time(5 * time.Millisecond)})
	table.Add(Row{What: "agent at rest: wake-ups a minute", Ours: Count(float64(after.switches - before.switches))})
	return nil
}

func both(a, b int) (first, second usage, err error) {
	first, errA := usageOf(a)
	second, errB := usageOf(b)
	return first, second, errors.Join(errA, errB)
}

// usage is what the kernel counts of one process and its ended children.
type usage struct {
	rss      int64
	cpu      time.Duration
	switches int64 // voluntary: each is a wake-up
}

func usageOf(pid int) (u usage, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("process %d is gone", pid)
	}
	for _, t := range tasks {
		data, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ns)
		u.switches += statusField(filepath.Join(t, "status"), "voluntary_ctxt_switches:")
	}
	u.rss = statusField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:") << 10
	children, err := childTime(pid)
	u.cpu += children
	return u, err
}

func statusField(path, name string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// childTime is the CPU time of children that were waited for, cutime and cstime
// of proc(5), in clock ticks of 10 ms.
func childTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	var ticks int64
	for _, f := range fields[13:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// idleWorld is one node with 50 environment files and nothing to do.
type idleWorld struct {
	dir, config string
	manager     *harness.Manager
	managerDir  string
	git         *harness.GitServer
	running     []*exec.Cmd
}

func newIdleWorld(ctx context.Context, dir string, env environment) (w *idleWorld, err error) {
	w = &idleWorld{dir: dir, config: filepath.Join(dir, "agent", "config.yaml")}
	if err := os.MkdirAll(filepath.Join(dir, "agent", "trust"), 0o755); err != nil {
		return w, err
	}
	if w.managerDir, err = os.MkdirTemp("", "gpuaas-sd-"); err != nil {
		return w, err
	}
	if w.manager, err = harness.StartManager(ctx, w.managerDir); err != nil {
		return w, err
	}
	repo, err := harness.CreateGitRepo(filepath.Join(dir, "git", "fleet.git"))
	if err != nil {
		return w, err
	}
	if w.git, err = harness.StartGitServer(harness.GitServerOptions{Root: filepath.Join(dir, "git")}); err != nil {
		return w, err
	}
	if err := w.publish(ctx, env.signer, repo.Dir); err != nil {
		return w, err
	}
	config := fmt.Sprintf("apiVersion: fleet.gpuaas.dev/v1\nkind: AgentConfig\nnode: gpu-001\nsource: {url: %s/fleet.git}\npaths: {state: %[2]s/state, run: %[2]s/run, packages: %[2]s/packages, units: %[3]s, files: [%[2]s/etc]}\n",
		w.git.URL, dir, w.manager.UnitDir())
	return w, os.WriteFile(w.config, []byte(config), 0o644)
}

// publish makes the fleet: init, one profile of 50 files for one node, sign, publish.
func (w *idleWorld) publish(ctx context.Context, signer, remote string) error {
	fleet := filepath.Join(w.dir, "fleet")
	run := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = w.dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Bench", "GIT_AUTHOR_EMAIL=bench@example.com", "GIT_COMMITTER_NAME=Bench", "GIT_COMMITTER_EMAIL=bench@example.com")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := run(signer, "init", fleet, "--keys", filepath.Join(w.dir, "keys"), "--no-passphrase"); err != nil {
		return err
	}
	for _, old := range []string{"profiles", "packages", "nodes"} {
		if err := os.RemoveAll(filepath.Join(fleet, old)); err != nil {
			return err
		}
	}
	profile := "apiVersion: fleet.gpuaas.dev/v1\nkind: Profile\nname: files\ntasks:\n"
	for i := range 50 {
		profile += fmt.Sprintf("  - {id: env-%d, type: runtime.write_env_file, with: {path: %s/etc/%d.env, env: {N: %d}}}\n", i, w.dir, i, i)
	}
	root, err := os.ReadFile(filepath.Join(fleet, "trust", "root.json"))
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		filepath.Join(fleet, "profiles", "files.yaml"):      profile,
		filepath.Join(fleet, "nodes", "gpu-001.yaml"):       "apiVersion: fleet.gpuaas.dev/v1\nkind: Node\nid: gpu-001\n",
		filepath.Join(w.dir, "agent", "trust", "root.json"): string(root),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"git", "-C", fleet, "add", "--all"}, {"git", "-C", fleet, "commit", "--quiet", "--message", "Files"},
		{"git", "-C", fleet, "remote", "add", "origin", remote}, {"git", "-C", fleet, "push", "--quiet", "origin", "main", "signed"},
		{signer, "-C", fleet, "sign", "--keys", filepath.Join(w.dir, "keys")}, {signer, "-C", fleet, "publish"},
	} {
		if err := run(args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (w *idleWorld) start(ctx context.Context, name string, args ...string) (pid int, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), w.manager.Env()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w.running = append(w.running, cmd)
	return cmd.Process.Pid, nil
}

func (w *idleWorld) converged(ctx context.Context) error {
	for range 300 {
		data, err := os.ReadFile(filepath.Join(w.dir, "run", "status.json"))
		if err == nil && strings.Contains(string(data), `"phase": "Committed"`) {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("the agent did not converge within 30 s")
}

func (w *idleWorld) close() error {
	var errs []error
	for _, cmd := range w.running {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end
	}
	if w.git != nil {
		errs = append(errs, w.git.Stop())
	}
	if w.manager != nil {
		errs = append(errs, w.manager.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.managerDir))...)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
