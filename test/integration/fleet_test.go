package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// The service of most stories.
const (
	service = "gpuaas-story.service"
	profile = "profiles/story.yaml"
)

// write writes a file of the fleet repo.
func (w *world) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.fleet, name)
	w.must(os.MkdirAll(filepath.Dir(path), 0o755))
	w.must(os.WriteFile(path, []byte(content), 0o600))
}

// edit replaces text in a file of the fleet repo; it must be there.
func (w *world) edit(name, old, new string) {
	w.t.Helper()
	path := filepath.Join(w.fleet, name)
	data, err := os.ReadFile(path)
	w.must(err)
	if !strings.Contains(string(data), old) {
		w.t.Fatalf("%s has no %q:\n%s", name, old, data)
	}
	w.write(name, strings.ReplaceAll(string(data), old, new))
}

// remove removes a file of the fleet repo.
func (w *world) remove(name string) {
	w.t.Helper()
	w.must(os.Remove(filepath.Join(w.fleet, name)))
}

// merge is a change that was reviewed and merged: it is on main, and the
// pipeline signed and published it. It returns the signed commit.
func (w *world) merge(message string) string {
	w.t.Helper()
	w.commit(message)
	w.publish()
	return w.published()
}

// commit puts the change on main.
func (w *world) commit(message string) {
	w.t.Helper()
	w.gitIn(w.fleet, "add", "-A")
	w.gitIn(w.fleet, "commit", "--quiet", "--allow-empty", "-m", message)
	w.gitIn(w.fleet, "push", "--quiet", "origin", "HEAD:main")
}

// publish is what the pipeline does after a merge.
func (w *world) publish() {
	w.t.Helper()
	w.signer(w.fleet, "sign", "--keys", w.keys)
	w.signer(w.fleet, "publish")
}

// published is the commit of the signed branch on the server.
func (w *world) published() string {
	w.t.Helper()
	return w.remote.MustGit(w.t, "rev-parse", "refs/heads/signed")
}

// publishedGeneration is that of the node's manifest on the server.
func (w *world) publishedGeneration() int64 {
	w.t.Helper()
	text := w.remote.MustGit(w.t, "show", "refs/heads/signed:targets/"+trust.TargetPath(v1.DefaultTeam, nodeID))
	m := regexp.MustCompile(`(?m)^generation: (\d+)$`).FindStringSubmatch(text)
	if m == nil {
		w.t.Fatalf("the manifest has no generation:\n%s", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	w.must(err)
	return n
}

// deliver merges a change, has the agent look at once, and waits until the
// node is as the fleet wants it.
func (w *world) deliver(message string) {
	w.t.Helper()
	w.merge(message)
	w.hangup()
	w.converged()
}

// packageFolder makes the source folder of a package: the service's binary, its
// version, and more files by path.
func (w *world) packageFolder(name, version string, files map[string]string) string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "src", name+"-"+version)
	root := filepath.Join(dir, "root")
	w.must(os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	binary, err := os.ReadFile(filepath.Join(built, "service"))
	w.must(err)
	w.must(os.WriteFile(filepath.Join(root, "bin", "service"), binary, 0o755))
	w.must(os.WriteFile(filepath.Join(root, "version"), []byte(version+"\n"), 0o644))
	for path, content := range files {
		at := filepath.Join(root, path)
		w.must(os.MkdirAll(filepath.Dir(at), 0o755))
		w.must(os.WriteFile(at, []byte(content), 0o644))
	}
	w.must(os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(fmt.Sprintf(
		"apiVersion: fleet.gpuaas.dev/v1\nkind: PackageSource\nname: %s\nversion: %q\nroot: root\nentryPoints: [bin/service]\n", name, version)), 0o644))
	return dir
}

// push builds the package in a folder, pushes it, and pins it in the fleet repo.
func (w *world) push(dir string) {
	w.t.Helper()
	name := strings.Split(filepath.Base(dir), "-")[0]
	layout := dir + ".layout"
	w.signer(w.dir, "package", "build", dir, "-o", layout)
	pin := filepath.Join(w.fleet, "packages", name+".yaml")
	w.signer(w.dir, "package", "push", layout, w.registry.Host+"/"+strings.ToLower(w.t.Name())+"/"+name, "--pin", pin)
	if w.registryHost() != w.registry.Host {
		w.edit("packages/"+name+".yaml", w.registry.Host, w.registryHost())
	}
}

// install writes the profile of the usual story, one service with an
// environment file, into the fleet repo, with its package.
func (w *world) install() {
	w.t.Helper()
	w.push(w.packageFolder("story", "1", nil))
	w.write(profile, w.storyProfile())
}

// storyProfile is the usual profile: on every node, one service.
func (w *world) storyProfile() string {
	return fmt.Sprintf(`apiVersion: fleet.gpuaas.dev/v1
kind: Profile
name: story
selector: {matchLabels: {name: %[1]s}}
packages: [story]
tasks:
  - id: env
    type: runtime.write_env_file
    with:
      path: %[2]s/story.env
      mode: "0600"
      env:
        LISTEN: 127.0.0.1:%[3]d
        STARTS: %[4]s
        FAIL: ""
        VALUE: one
  - id: unit
    type: runtime.install_service_unit
    with:
      unit: %[5]s
      content: |
        [Unit]
        Description=Story
        [Service]
        EnvironmentFile=%[2]s/story.env
        ExecStart=${packages.story.path}/bin/service
        [Install]
        WantedBy=default.target
  - id: story
    type: runtime.service_control
    with:
      unit: %[5]s
      state: running
      enabled: true
      restartOn: [package/story, env, unit]
      health: {stableFor: 300ms, timeout: 10s, http: {url: "http://127.0.0.1:%[3]d/health"}}
`, nodeID, w.node.etc, w.port, w.node.starts, service)
}
