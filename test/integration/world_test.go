package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/test/harness"
)

// The nodes of the fleet: this one has an agent, the other one doesn't exist.
const (
	nodeID    = "gpu-001"
	otherNode = "gpu-002"
)

// world is everything around one story.
type world struct {
	t   *testing.T
	dir string

	fleet, keys string // fleet repo and private keys
	remote      *harness.GitRepo
	git         *harness.GitServer
	registry    *harness.Registry
	manager     *harness.Manager
	node        node
	port        int // where the service listens

	opts options
}

// node holds the folders of the node.
type node struct {
	config, state, run   string // the agent's own
	etc, packages, units string // where tasks put things
	starts               string // the file in which services note their starts
	log                  string // the agent's
}

// options of a world; the zero value is the usual one.
type options struct {
	// poll and scan are intervals of the agent; an hour each, so that nothing
	// happens but through events and SIGHUP.
	poll, scan time.Duration
	staleAfter time.Duration
	// registry is one that the story may break.
	registry *harness.Registry
	// registryHost is what stands in refs, if it isn't the registry itself.
	registryHost string
	// gitURL is the git server as the agent knows it, if it isn't the server itself.
	gitURL string
	// fleet is added to fleet.yaml.
	fleet string
	// config is added to the agent's config.yaml.
	config string
	// prepare is called when the node's folders are made, before the manager,
	// whose mount namespace sees only what is mounted by then.
	prepare func(*world)
	// bare leaves out the manager.
	bare bool
}

// newWorld makes a world whose fleet has two nodes and nothing to run on them.
func newWorld(t *testing.T, opts options) *world {
	t.Helper()
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	w := &world{t: t, dir: dir, fleet: at("fleet"), keys: at("keys"), port: freePort(t), opts: opts}
	w.node = node{
		config: at("node", "agent", "config"), state: at("node", "agent", "state"), run: at("node", "agent", "run"),
		etc: at("node", "etc"), packages: at("node", "packages"), units: at("node", "units"),
		starts: at("node", "starts"), log: at("agent.log"),
	}
	for _, d := range []string{w.node.etc, w.node.packages, w.node.config} {
		w.must(os.MkdirAll(d, 0o755))
	}
	if opts.prepare != nil {
		opts.prepare(w)
	}
	if !opts.bare {
		w.manager = harness.NewManager(t)
		w.node.units = w.manager.UnitDir()
	}
	w.must(os.MkdirAll(w.node.units, 0o755))
	if w.registry = opts.registry; w.registry == nil {
		w.registry = sharedRegistry(t)
	}
	w.git = harness.NewGitServer(t, harness.GitServerOptions{Root: at("git")})
	w.remote = harness.NewGitRepo(t, filepath.Join(w.git.Root, "fleet.git"))
	w.initFleet()
	w.configure()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the agent's log:\n%s", w.logTail(60))
		}
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// registryHost is the registry as it is named in refs.
func (w *world) registryHost() string {
	if w.opts.registryHost != "" {
		return w.opts.registryHost
	}
	return w.registry.Host
}

// initFleet makes the fleet repo as an operator does, and puts this story's fleet in.
func (w *world) initFleet() {
	w.t.Helper()
	w.signer(".", "init", w.fleet, "--keys", w.keys, "--no-passphrase", "--name", "story", "--registry", w.registryHost(),
		"--etc", w.node.etc, "--install-root", w.node.packages, "--user")
	for _, d := range []string{"packages", "profiles", "nodes"} {
		w.must(os.RemoveAll(filepath.Join(w.fleet, d)))
		w.must(os.Mkdir(filepath.Join(w.fleet, d), 0o755))
	}
	w.write("nodes/gpu-001.yaml", nodeYAML(nodeID))
	w.write("nodes/gpu-002.yaml", nodeYAML(otherNode))
	fleet, err := os.ReadFile(filepath.Join(w.fleet, "fleet.yaml"))
	w.must(err)
	w.write("fleet.yaml", string(fleet)+w.opts.fleet)
	w.gitIn(w.fleet, "remote", "add", "origin", w.git.URL+"/fleet.git")
	root, err := os.ReadFile(filepath.Join(w.fleet, "trust", "root.json"))
	w.must(err)
	w.must(os.MkdirAll(filepath.Join(w.node.config, "trust"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.node.config, "trust", "root.json"), root, 0o600))
}

func nodeYAML(id string) string {
	return "apiVersion: fleet.gpuaas.dev/v1\nkind: Node\nid: " + id + "\nlabels: {name: " + id + "}\n"
}

// configure writes the agent's config.yaml.
func (w *world) configure() {
	w.t.Helper()
	def := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	url := w.opts.gitURL
	if url == "" {
		url = w.git.URL
	}
	text := fmt.Sprintf(`apiVersion: fleet.gpuaas.dev/v1
kind: AgentConfig
node: %s
source: {url: %s/fleet.git, timeout: 20s, staleAfter: %s}
poll: {interval: %s, scan: %s}
registries:
  - {host: "%s", plainHTTP: true}
paths: {state: %s, run: %s, packages: %s, units: %s, files: [%s]}
%s`, nodeID, url, def(w.opts.staleAfter, time.Hour), def(w.opts.poll, time.Hour), def(w.opts.scan, time.Hour), w.registryHost(),
		w.node.state, w.node.run, w.node.packages, w.node.units, w.node.etc, w.opts.config)
	w.must(os.WriteFile(w.configFile(), []byte(text), 0o600))
}

func (w *world) configFile() string { return filepath.Join(w.node.config, "config.yaml") }

// result is what a command printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// command runs a program and returns how it ended.
func (w *world) command(dir, name string, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, w.env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// env is that of an operator of the node, whose git knows nobody else's configuration.
func (w *world) env() []string {
	env := append(os.Environ(),
		"GIT_AUTHOR_NAME=Story", "GIT_AUTHOR_EMAIL=story@example.com", "GIT_COMMITTER_NAME=Story", "GIT_COMMITTER_EMAIL=story@example.com",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0", "HOME="+w.dir)
	if w.manager != nil {
		env = append(env, w.manager.Env()...)
	} else {
		env = append(env, "XDG_RUNTIME_DIR="+w.dir)
	}
	return env
}

// gitIn runs git, which must succeed.
func (w *world) gitIn(dir string, args ...string) string {
	w.t.Helper()
	r := w.command(dir, "git", args...)
	if r.code != 0 {
		w.t.Fatalf("git %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// signer runs gpuaas-signer, which must succeed.
func (w *world) signer(dir string, args ...string) string {
	w.t.Helper()
	r := w.command(dir, filepath.Join(built, "gpuaas-signer"), args...)
	if r.code != 0 {
		w.t.Fatalf("gpuaas-signer %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// freePort finds a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// eventually waits until check returns nil, and fails with its last word when
// that takes far too long.
func (w *world) eventually(what string, check func() error) time.Duration {
	w.t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > 90*time.Second {
			w.t.Fatalf("%s: not seen in %s: %v", what, time.Since(start).Round(time.Second), err)
		}
		time.Sleep(15 * time.Millisecond)
	}
}
