// Package bench measures parts of the agent together, each beside what it is
// held against. It has no code of its own.
package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/agent/internal/store"
	"github.com/gpuaas/node-agent/schema/task"
	"github.com/gpuaas/node-agent/test/harness"
)

const (
	// sizeEnv says how many MiB the package has; 1024 is what the target is about.
	sizeEnv   = "GPUAAS_BENCH_PACKAGE_MIB"
	files     = 2000
	layerType = "application/vnd.oci.image.layer.v1.tar"
)

// TestMain lets the test binary be the child, as the agent's binary is its own.
func TestMain(m *testing.M) {
	var err error
	switch name := append(os.Args, "")[1]; {
	case len(os.Args) == 2 && name == fetch.ChildCommand:
		err = fetch.RunChild(context.Background(), os.Stdin, os.Stdout, os.Stderr)
	case len(os.Args) == 2 && name == store.ChildCommand:
		err = store.RunChild(context.Background(), os.Stdin, os.Stdout)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// makeTree makes the files: half noise, half text, in a few hundred folders.
func makeTree(b *testing.B, dir string, size int) {
	b.Helper()
	noise := rand.NewChaCha8([32]byte{1})
	for i := range files {
		folder := filepath.Join(dir, fmt.Sprintf("d%02d/s%d", i%40, i%7))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		data := make([]byte, size/files)
		_, _ = noise.Read(data[:len(data)/2])
		copy(data[len(data)/2:], bytes.Repeat(fmt.Appendf(nil, "file %d of the package\n", i), len(data)/2/20))
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%d", i)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// pack returns the tree as an archive.
func pack(b *testing.B, dir, compression string) []byte {
	b.Helper()
	var out bytes.Buffer
	var z io.WriteCloser
	var err error
	switch compression {
	case "gzip":
		z = gzip.NewWriter(&out)
	case "zstd":
		z, err = zstd.NewWriter(&out)
	default:
		z = nopCloser{&out}
	}
	if err != nil {
		b.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.AddFS(os.DirFS(dir))
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// BenchmarkPackage pulls a package from a registry, verifies and unpacks it, all
// durably, beside cp of the same tree.
func BenchmarkPackage(b *testing.B) {
	mib := 256
	if n, err := strconv.Atoi(os.Getenv(sizeEnv)); err == nil {
		mib = n
	}
	tree := filepath.Join(b.TempDir(), "tree")
	makeTree(b, tree, mib<<20)
	registry := harness.NewRegistry(b, harness.RegistryOptions{})
	for _, compression := range []string{"tar", "gzip", "zstd"} {
		b.Run(compression, func(b *testing.B) {
			pkg, layer := push(b, registry, tree, compression)
			var t times
			for b.Loop() {
				t.run(b, tree, pkg)
			}
			t.report(b, mib, layer)
		})
	}
}

func push(b *testing.B, r *harness.Registry, tree, compression string) (task.Package, int64) {
	b.Helper()
	mediaType := layerType
	if compression != "tar" {
		mediaType += "+" + compression
	}
	repo := "bench/" + compression
	layer := r.PutBlob(b, repo, mediaType, pack(b, tree, compression))
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	d := r.PutManifest(b, repo, "", manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "artifactType": fetch.ArtifactType,
		"config": r.PutBlob(b, repo, fetch.ConfigMediaType, []byte("{}")), "layers": []any{layer},
	})
	return task.Package{Name: "bench", Repository: r.Host + "/" + repo, Digest: d.Digest}, layer.Size
}

// times are sums over all rounds.
type times struct {
	rounds                 int
	pull, unpack, cp, sync time.Duration
	cpu, cpuCp             time.Duration // of the processes that did it
}

// spent returns the processor time of all processes that were waited for.
func spent(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func (t *times) run(b *testing.B, tree string, pkg task.Package) {
	dir := b.TempDir()
	f, err := fetch.New(fetch.Config{BlobDir: filepath.Join(dir, "blobs")})
	if err != nil {
		b.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(store.Options{Root: filepath.Join(dir, "packages"), Executable: executable})
	if err != nil {
		b.Fatal(err)
	}
	command(b, "sync", "-f", dir) // nobody shall pay for what came before
	start, cpu := time.Now(), spent(b)
	command(b, "cp", "-a", tree, filepath.Join(dir, "copy"))
	copied := time.Now()
	t.cpuCp += spent(b) - cpu
	command(b, "sync", "-f", dir)
	begin := time.Now()
	cpu = spent(b)
	a, err := f.Fetch(b.Context(), pkg, fetch.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		b.Fatal(err)
	}
	pulled := time.Now()
	p := store.Package{Name: pkg.Name, Digest: pkg.Digest}
	for _, l := range a.Layers {
		p.Layers = append(p.Layers, store.Layer(l))
	}
	if err := s.Unpack(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	done := time.Now()
	t.rounds++
	t.cpu += spent(b) - cpu
	t.cp += copied.Sub(start)
	t.sync += begin.Sub(start)
	t.pull += pulled.Sub(begin)
	t.unpack += done.Sub(pulled)
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
}

func (t *times) report(b *testing.B, mib int, layer int64) {
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(t.rounds) }
	total := t.pull + t.unpack
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(mib), "MiB")
	b.ReportMetric(float64(layer>>20), "MiB-packed")
	b.ReportMetric(ms(t.pull), "ms-pull")
	b.ReportMetric(ms(t.unpack), "ms-unpack")
	b.ReportMetric(ms(t.cp), "ms-cp")
	b.ReportMetric(ms(t.sync), "ms-cp+sync")
	b.ReportMetric(float64(total)/float64(t.cp), "x-cp")
	b.ReportMetric(float64(total)/float64(t.sync), "x-cp+sync")
	b.ReportMetric(float64(t.cpu)/float64(t.cpuCp), "x-cp-cpu")
}

func command(b *testing.B, name string, args ...string) {
	b.Helper()
	if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", name, err, out)
	}
}
