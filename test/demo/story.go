package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

const exporterUnit = "gpuaas-node-exporter.service"

// createFleet is chapter 1.
func createFleet(ctx context.Context, w *world) error {
	if _, err := w.run(ctx, w.dir, "gpuaas-signer", "init", "fleet", "--keys", "keys", "--no-passphrase",
		"--name", "demo", "--environment", "demo", "--registry", w.registry.Host+"/gpuaas",
		"--etc", w.etc(), "--install-root", w.packages(), "--user"); err != nil {
		return err
	}
	// The demo's port instead of node_exporter's own, which may be taken.
	if err := w.edit("profiles/node-exporter.yaml", "127.0.0.1:9100", fmt.Sprintf("127.0.0.1:%d", w.port)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"commit", "--quiet", "--all", "--message", "Listen on the demo's port"},
		{"remote", "add", "origin", w.remote()},
		{"push", "--quiet", "origin", "main", "signed"},
	} {
		if _, err := w.run(ctx, w.fleet(), "git", args...); err != nil {
			return err
		}
	}
	for _, branch := range []string{"main", "signed"} {
		if _, err := w.head(ctx, branch); err != nil {
			return fmt.Errorf("the git server has no branch %s: %w", branch, err)
		}
	}
	w.out.saw(0, "the git server has the branches main and signed")
	info, err := os.Stat(filepath.Join(w.keys(), "root-1.key"))
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others", info.Name())
	}
	w.out.saw(0, "keys are outside the fleet repo, readable by their owner only")
	return nil
}

// head asks the git server where a branch is.
func (w *world) head(ctx context.Context, branch string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-remote", "--exit-code", w.remote(), "refs/heads/"+branch)
	cmd.Env = append(os.Environ(), gitIdentity...)
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	hash, _, _ := strings.Cut(string(out), "\t")
	return hash, nil
}

// edit replaces text in a file of the fleet repo; it must be there.
func (w *world) edit(file, old, new string) error {
	path := filepath.Join(w.fleet(), file)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(data, []byte(old)) {
		return fmt.Errorf("%s has no %q", file, old)
	}
	w.out.say("edit %s: %q becomes %q", filepath.Join("fleet", file), old, new)
	return os.WriteFile(path, bytes.ReplaceAll(data, []byte(old), []byte(new)), 0o644)
}

var digestPattern = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// buildPackage is chapter 2.
func buildPackage(ctx context.Context, w *world) error {
	source := filepath.Join(w.root, "examples", "node-exporter", "package")
	if err := os.CopyFS(filepath.Join(w.dir, "package"), os.DirFS(source)); err != nil {
		return err
	}
	w.out.say("package/ is a copy of examples/node-exporter/package; the source comes from the Go module proxy, pinned by go.sum")
	if err := os.Chmod(filepath.Join(w.dir, "package", "build.sh"), 0o755); err != nil {
		return err
	}
	w.out.say("built for this machine only, to be quick: package.yaml's other platforms are left out")
	if err := onlyPlatform(filepath.Join(w.dir, "package", "package.yaml"), runtime.GOARCH); err != nil {
		return err
	}
	if _, err := w.run(ctx, w.dir, "package/build.sh", "package/build", runtime.GOARCH); err != nil {
		return err
	}
	var digests []string
	for _, layout := range []string{"layout", "layout-again"} {
		out, err := w.run(ctx, w.dir, "gpuaas-signer", "package", "build", "package", "-o", layout)
		if err != nil {
			return err
		}
		digests = append(digests, digestPattern.FindString(out))
	}
	if digests[0] == "" || digests[0] != digests[1] {
		return fmt.Errorf("two builds of the same input gave %v", digests)
	}
	w.out.saw(0, "two builds of the same input have the same digest")
	if _, err := w.run(ctx, w.dir, "gpuaas-signer", "package", "push", "layout", w.registry.Host+"/gpuaas/node-exporter:demo",
		"--pin", "fleet/packages/node-exporter.yaml"); err != nil {
		return err
	}
	if err := w.registryDigest(ctx, "gpuaas/node-exporter", digests[0]); err != nil {
		return err
	}
	w.out.saw(0, "the registry serves %s", digests[0])
	pin, err := os.ReadFile(filepath.Join(w.fleet(), "packages/node-exporter.yaml"))
	if err != nil {
		return err
	}
	if !bytes.Contains(pin, []byte(digests[0])) {
		return errors.New("packages/node-exporter.yaml doesn't pin that digest")
	}
	w.out.saw(0, "packages/node-exporter.yaml pins it")
	return nil
}

// onlyPlatform takes the other architectures out of a package.yaml.
func onlyPlatform(file, arch string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := slices.DeleteFunc(strings.Split(string(data), "\n"), func(l string) bool {
		l = strings.TrimSpace(l)
		return strings.HasPrefix(l, "linux/") && !strings.HasPrefix(l, "linux/"+arch+":")
	})
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
}

// firstChange is chapter 3.
func firstChange(ctx context.Context, w *world) error {
	if _, err := w.run(ctx, w.fleet(), "git", "switch", "--quiet", "--create", "node-exporter"); err != nil {
		return err
	}
	if _, err := w.run(ctx, w.dir, "gpuaas-signer", "-C", "fleet", "validate"); err != nil {
		return err
	}
	rendered, err := w.run(ctx, w.dir, "gpuaas-signer", "-C", "fleet", "render", nodeID)
	if err != nil {
		return err
	}
	if !strings.Contains(rendered, w.packages()+"/node-exporter/current/bin/node_exporter") {
		return errors.New("the rendered manifest doesn't run the package's binary")
	}
	diff, err := w.try(ctx, w.dir, "gpuaas-signer", "-C", "fleet", "diff")
	if code := exitCode(err); code != 5 {
		return fmt.Errorf("diff ended with exit code %d, want 5 (pending change)", code)
	}
	if !strings.Contains(diff, nodeID) || !strings.Contains(diff, otherNode) {
		return errors.New("the diff doesn't show both nodes")
	}
	w.out.saw(0, "the diff shows what every node would get; exit code 5 says that something is pending")
	return w.release(ctx, "Run node_exporter")
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// release commits what is changed, merges it if it is on a branch, signs and
// publishes: what CI does after the merge.
func (w *world) release(ctx context.Context, message string) error {
	if _, err := w.run(ctx, w.fleet(), "git", "commit", "--quiet", "--all", "--message", message); err != nil {
		return err
	}
	branch, err := exec.CommandContext(ctx, "git", "-C", w.fleet(), "branch", "--show-current").Output()
	if err != nil {
		return err
	}
	if b := strings.TrimSpace(string(branch)); b != "main" {
		for _, args := range [][]string{{"switch", "--quiet", "main"}, {"merge", "--quiet", "--no-ff", "--message", "Merge: " + message, b}} {
			if _, err := w.run(ctx, w.fleet(), "git", args...); err != nil {
				return err
			}
		}
	}
	if _, err := w.run(ctx, w.fleet(), "git", "push", "--quiet", "origin", "main"); err != nil {
		return err
	}
	before, err := w.head(ctx, "signed")
	if err != nil {
		return err
	}
	if _, err := w.run(ctx, w.dir, "gpuaas-signer", "-C", "fleet", "sign", "--keys", "../keys"); err != nil {
		return err
	}
	if _, err := w.run(ctx, w.dir, "gpuaas-signer", "-C", "fleet", "publish"); err != nil {
		return err
	}
	after, err := w.head(ctx, "signed")
	if err != nil {
		return err
	}
	if after == before {
		return errors.New("the signed branch on the server didn't move")
	}
	w.signedGood = after
	w.out.saw(0, "the signed branch on the server moved to %s", after[:12])
	return nil
}

// remove is chapter 8.
func remove(ctx context.Context, w *world) error {
	foreign := filepath.Join(w.etc(), "not-ours.env")
	if err := os.WriteFile(foreign, []byte("KEEP=me\n"), 0o644); err != nil {
		return err
	}
	w.out.say("a file that isn't the agent's: %s", foreign)
	if _, err := w.run(ctx, w.fleet(), "git", "rm", "--quiet", "profiles/node-exporter.yaml", "packages/node-exporter.yaml"); err != nil {
		return err
	}
	if err := w.release(ctx, "Take node_exporter away"); err != nil {
		return err
	}
	took, err := wait(ctx, func() error {
		return errors.Join(gone(filepath.Join(w.units, exporterUnit)), gone(filepath.Join(w.etc(), "node-exporter.env")),
			gone(filepath.Join(w.packages(), "node-exporter")))
	})
	if err != nil {
		return err
	}
	w.out.saw(took, "unit, env file and package are gone")
	u, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	if u.active == "active" || u.load != "not-found" || u.file == "enabled" {
		return fmt.Errorf("systemd still knows the unit: %+v", u)
	}
	if err := w.answers(); err == nil {
		return errors.New("node_exporter still answers")
	}
	w.out.saw(0, "systemd doesn't know the unit any more and nothing answers on port %d", w.port)
	if _, err := os.Stat(foreign); err != nil {
		return err
	}
	if a, err := w.unit(agentUnit); err != nil || a.active != "active" {
		return errors.Join(err, fmt.Errorf("the agent's own unit is %+v", a))
	}
	w.out.saw(0, "nothing else was touched: %s and the agent's own unit are there", filepath.Base(foreign))
	return nil
}
