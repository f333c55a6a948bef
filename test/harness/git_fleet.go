package harness

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
)

// bins is how many hash bins a big team's manifests go into.
const bins = 256

// SyntheticFleet is a signed branch that nobody signed: files with the names,
// number and size of real ones, whose hashes can't be compressed any better
// than real ones. It is for what moves bytes and doesn't verify them.
type SyntheticFleet struct {
	Repo   *GitRepo
	Branch string
	Nodes  int

	generation int
}

// ImportFleet makes a branch with that many nodes, "gpu-0" and up, and repacks
// the repository as a server would have.
func ImportFleet(repo *GitRepo, branch string, nodes int) (*SyntheticFleet, error) {
	f := &SyntheticFleet{Repo: repo, Branch: branch, Nodes: nodes, generation: 1}
	_, err := repo.fastImport(GitCommit{Branch: branch}, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 1<<20)
		if err := f.writeAll(buffered); err != nil {
			return err
		}
		return buffered.Flush()
	})
	if err != nil {
		return nil, err
	}
	if _, err := repo.Git("repack", "-a", "-d", "-q", "--write-bitmap-index"); err != nil {
		return nil, err
	}
	return f, nil
}

// NodeID returns the id of node i.
func (f *SyntheticFleet) NodeID(i int) string { return fmt.Sprintf("gpu-%d", i) }

// ManifestPath returns the path of node i's manifest in the branch.
func (f *SyntheticFleet) ManifestPath(i int) string {
	id := f.NodeID(i)
	return "targets/nodes/fleet/" + hexOf(id)[:2] + "/" + id + ".yaml"
}

// Wanted returns the files that node i's agent asks for.
func (f *SyntheticFleet) Wanted(i int) []string {
	return []string{
		"metadata/root.json", "metadata/*.root.json", "metadata/timestamp.json", "metadata/snapshot.json",
		"metadata/targets.json", "metadata/fleet.json", f.rolePath(i), f.ManifestPath(i),
	}
}

// ChangeNode publishes another manifest for node i, with the metadata that
// changes along, and returns the commit.
func (f *SyntheticFleet) ChangeNode(i int) (string, error) {
	f.generation++
	files := map[string][]byte{
		f.ManifestPath(i):         f.manifest(i, f.generation),
		f.rolePath(i):             f.role(f.rolePath(i), i),
		"metadata/snapshot.json":  f.snapshot(),
		"metadata/timestamp.json": f.small("timestamp", 1),
	}
	return f.Repo.Commit(GitCommit{Branch: f.Branch, Files: files})
}

func (f *SyntheticFleet) binned() bool { return f.Nodes > 500 }

// rolePath is the metadata file that names node i's manifest.
func (f *SyntheticFleet) rolePath(i int) string {
	if !f.binned() {
		return "metadata/fleet.json"
	}
	return "metadata/fleet-" + hexOf(f.ManifestPath(i))[:2] + ".json"
}

func (f *SyntheticFleet) writeAll(w io.Writer) error {
	files := map[string][]byte{
		"metadata/root.json":      f.small("root", 6),
		"metadata/1.root.json":    f.small("root", 6),
		"metadata/timestamp.json": f.small("timestamp", 1),
		"metadata/targets.json":   f.small("targets", 3),
		"metadata/fleet.json":     f.small("fleet", 3),
		"metadata/snapshot.json":  f.snapshot(),
	}
	roles := map[string][]int{}
	for i := range f.Nodes {
		if err := importFile(w, f.ManifestPath(i), f.manifest(i, 1)); err != nil {
			return err
		}
		roles[f.rolePath(i)] = append(roles[f.rolePath(i)], i)
	}
	for path, members := range roles {
		files[path] = f.roleOf(members, -1)
	}
	for path, data := range files {
		if err := importFile(w, path, data); err != nil {
			return err
		}
	}
	return nil
}

// role is the content of a role file, in which node changed is at the fleet's
// generation and all others at the first.
func (f *SyntheticFleet) role(path string, changed int) []byte {
	var members []int
	for i := range f.Nodes {
		if f.rolePath(i) == path {
			members = append(members, i)
		}
	}
	return f.roleOf(members, changed)
}

func (f *SyntheticFleet) roleOf(members []int, changed int) []byte {
	lines := make([]string, 0, len(members))
	for _, i := range members {
		generation := 1
		if i == changed {
			generation = f.generation
		}
		lines = append(lines, fmt.Sprintf("   %q: {\n    \"hashes\": {\n     \"sha256\": %q\n    },\n    \"length\": %d\n   }",
			strings.TrimPrefix(f.ManifestPath(i), "targets/"), hexOf(fmt.Sprint(i, generation)), len(f.manifest(i, generation))))
	}
	slices.Sort(lines)
	return f.envelope("targets", strings.Join(lines, ",\n"))
}

func (f *SyntheticFleet) snapshot() []byte {
	var b strings.Builder
	count := 2
	if f.binned() {
		count += bins
	}
	for i := range count {
		fmt.Fprintf(&b, "   \"fleet-%02x.json\": {\n    \"version\": %d\n   },\n", i, 1)
	}
	return f.envelope("snapshot", b.String())
}

// small is metadata with so many keys' worth of text.
func (f *SyntheticFleet) small(kind string, keys int) []byte {
	var b strings.Builder
	for i := range keys {
		fmt.Fprintf(&b, "   %q: {\"keytype\": \"ed25519\", \"scheme\": \"ed25519\", \"keyval\": {\"public\": %q}},\n",
			hexOf(fmt.Sprint(kind, i)), hexOf(fmt.Sprint(kind, i, "public")))
	}
	return f.envelope(kind, b.String())
}

func (f *SyntheticFleet) envelope(kind, body string) []byte {
	return fmt.Appendf(nil, `{
 "signatures": [
  {"keyid": %q, "sig": "%s%s"}
 ],
 "signed": {
  "_type": %q,
  "expires": "2030-01-01T00:00:00Z",
  "spec_version": "1.0.31",
  "version": %d,
  "body": {
%s
  }
 }
}
`, hexOf(kind), hexOf(fmt.Sprint(kind, f.generation, "r")), hexOf(fmt.Sprint(kind, f.generation, "s")), kind, f.generation, body)
}

func (f *SyntheticFleet) manifest(i, generation int) []byte {
	id := f.NodeID(i)
	return fmt.Appendf(nil, `apiVersion: fleet.gpuaas.dev/v1
kind: NodeManifest
node: %s
generation: %d
source: {repo: https://git.example.com/fleet.git, commit: %s}
packages:
  - name: node-exporter
    ref: registry.example.com/gpuaas/node-exporter
    digest: sha256:%s
tasks:
  - id: exporter-env
    type: runtime.write_env_file
    with: {path: /etc/gpuaas/node-exporter.env, mode: "0640", env: {LISTEN: "10.%d.%d.%d:9100", SERIAL: %q}}
  - id: exporter-unit
    type: runtime.install_service_unit
    with: {unit: gpuaas-node-exporter.service, from: {package: node-exporter, file: systemd/node-exporter.service}}
  - id: exporter
    type: runtime.service_control
    with: {unit: gpuaas-node-exporter.service, state: running, enabled: true}
`, id, generation, hexOf(fmt.Sprint(generation))[:40], hexOf("package"), i>>16&255, i>>8&255, i&255, hexOf(id)[:16])
}

func hexOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
