package fetch_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

const config = `{"metadataVersion":1,"name":"thing","version":"1.2","unpackedSize":77,"entries":3,"units":["a.service"]}`

func TestFetchOnceThenFromDisk(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	one, two := noise(1, 3<<20), noise(2, 1000)
	d := push(t, r, config, nil, one, two)
	var heard []fetch.Progress
	f, dir := newFetcher(t, func(c *fetch.Config) {
		c.Progress = func(p fetch.Progress) { heard = append(heard, p) }
	})
	a, err := f.Fetch(t.Context(), pkg(r.Host, d), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, one, two)
	if a.Digest != d.Digest || a.Manifest != d.Digest || a.Downloaded != int64(len(one)+len(two)) {
		t.Errorf("got %+v", a)
	}
	if a.Metadata.Version != "1.2" || a.Metadata.UnpackedSize != 77 || a.Metadata.Entries != 3 || len(a.Metadata.Units) != 1 {
		t.Errorf("metadata %+v", a.Metadata)
	}
	if len(heard) == 0 || heard[len(heard)-1].Total != a.Downloaded || heard[0].Package != "thing" {
		t.Errorf("progress %+v", heard)
	}
	for _, name := range files(t, dir) {
		if strings.Contains(name, ".") {
			t.Errorf("%s was left behind", name)
		}
	}

	// All is there: no registry is needed.
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	again, err := f.Fetch(t.Context(), pkg(r.Host, d), linux)
	if err != nil || again.Downloaded != 0 {
		t.Fatalf("again: %+v, %v", again, err)
	}
	check(t, again, one, two)

	// A blob that was cut short or is gone is missing, and nothing else is.
	if err := os.Truncate(a.Layers[0].Path, 100); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err = f.Fetch(t.Context(), pkg(r.Host, d), linux)
	if err != nil || again.Downloaded != int64(len(one)) {
		t.Fatalf("after a truncation: %+v, %v", again, err)
	}
	check(t, again, one, two)
}

func TestIndexServesThePlatform(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	amd, arm, v7 := noise(1, 100), noise(2, 100), noise(3, 100)
	entry := func(d harness.Descriptor, os, arch, variant string) harness.Descriptor {
		d.Platform = map[string]string{"os": os, "architecture": arch}
		if variant != "" {
			d.Platform["variant"] = variant
		}
		return d
	}
	inner := index{2, indexType, []harness.Descriptor{entry(push(t, r, `{"a":1}`, nil, amd), "linux", "amd64", "")}}
	nested := entry(r.PutManifest(t, repository, "", indexType, inner), "linux", "riscv64", "")
	d := r.PutManifest(t, repository, "", indexType, index{2, indexType, []harness.Descriptor{
		entry(push(t, r, `{"os":"linux","architecture":"amd64"}`, nil, amd), "linux", "amd64", ""),
		entry(push(t, r, `{"os":"linux","architecture":"arm","variant":"v7"}`, nil, v7), "linux", "arm", "v7"),
		entry(push(t, r, `{"os":"linux","architecture":"arm64"}`, nil, arm), "linux", "arm64", "v8"),
		nested,
	}})
	f, _ := newFetcher(t, nil)
	for _, tc := range []struct {
		platform fetch.Platform
		layer    []byte
	}{
		{linux, amd},
		{fetch.Platform{OS: "linux", Architecture: "arm64"}, arm},
		{fetch.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, arm},
		{fetch.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, v7},
	} {
		a, err := f.Fetch(t.Context(), pkg(r.Host, d), tc.platform)
		if err != nil {
			t.Fatalf("%s: %v", tc.platform, err)
		}
		check(t, a, tc.layer)
		if a.Digest != d.Digest || a.Manifest == d.Digest {
			t.Errorf("%s: digest %s, manifest %s", tc.platform, a.Digest, a.Manifest)
		}
	}
	_, err := f.Fetch(t.Context(), pkg(r.Host, d), fetch.Platform{OS: "linux", Architecture: "s390x"})
	wantError(t, err, v1.ReasonPlatform, false, "linux/s390x", "linux/amd64, linux/arm/v7, linux/arm64/v8")
	_, err = f.Fetch(t.Context(), pkg(r.Host, d), fetch.Platform{OS: "linux", Architecture: "riscv64"})
	wantError(t, err, v1.ReasonPackageInvalid, false, "another index")

	// A manifest pinned without its index still says what it is for.
	only := push(t, r, `{"os":"linux","architecture":"arm64"}`, nil, arm)
	_, err = f.Fetch(t.Context(), pkg(r.Host, only), linux)
	wantError(t, err, v1.ReasonPlatform, false, "linux/arm64")
}

func TestWhatIsNoPackageIsRefused(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	layer := noise(1, 100)
	good := func(m *manifest) {}
	put := func(bend func(*manifest)) harness.Descriptor { return push(t, r, config, bend, layer) }
	var m manifest
	put(func(got *manifest) { m = *got })
	many := make([][]byte, fetch.MaxLayers+1)
	for i := range many {
		many[i] = layer
	}
	for name, tc := range map[string]struct {
		d    harness.Descriptor
		says string
	}{
		"image":             {put(func(m *manifest) { m.ArtifactType = "" }), "artifact type is \"\""},
		"another artifact":  {put(func(m *manifest) { m.ArtifactType = "application/vnd.cncf.helm" }), fetch.ArtifactType},
		"no layers":         {put(func(m *manifest) { m.Layers = []harness.Descriptor{} }), "0 layers"},
		"too many layers":   {push(t, r, config, good, many...), "129 layers"},
		"layer of docker":   {put(func(m *manifest) { m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip" }), "media type"},
		"layer of anything": {put(func(m *manifest) { m.Layers[0].MediaType = "text/plain" }), "media type"},
		"newer metadata":    {push(t, r, `{"metadataVersion":2}`, nil, layer), "update the agent"},
		"broken metadata":   {push(t, r, `{"name":`, nil, layer), "valid JSON"},
		"large config":      {push(t, r, `{"name":"`+strings.Repeat("x", fetch.MaxConfig)+`"}`, nil, layer), "limit is"},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := newFetcher(t, nil)
			_, err := f.Fetch(t.Context(), pkg(r.Host, tc.d), linux)
			wantError(t, err, v1.ReasonPackageInvalid, false, tc.says)
			for _, name := range files(t, dir) {
				if strings.HasSuffix(m.Layers[0].Digest, name) {
					t.Error("its layer was downloaded")
				}
			}
		})
	}
	t.Run("too large for this node", func(t *testing.T) {
		f, _ := newFetcher(t, func(c *fetch.Config) { c.MaxSize = 99 })
		_, err := f.Fetch(t.Context(), pkg(r.Host, put(good)), linux)
		wantError(t, err, v1.ReasonPackageInvalid, false, "larger than 99 bytes")
	})
	for name, p := range map[string]task.Package{
		"digest":      {Name: "thing", Repository: r.Host + "/x", Digest: "sha256:../../etc/passwd"},
		"tag":         {Name: "thing", Repository: r.Host + "/x:latest", Digest: m.Layers[0].Digest},
		"no registry": {Name: "thing", Repository: "library/x", Digest: m.Layers[0].Digest},
		"traversal":   {Name: "thing", Repository: r.Host + "/../../x", Digest: m.Layers[0].Digest},
	} {
		t.Run("bad "+name, func(t *testing.T) {
			f, _ := newFetcher(t, nil)
			_, err := f.Fetch(t.Context(), p, linux)
			wantError(t, err, v1.ReasonPackageInvalid, false)
		})
	}
}

func TestMovedTagChangesNothing(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	old, evil := noise(1, 100), noise(2, 100)
	var m manifest
	push(t, r, config, func(got *manifest) { m = *got }, old)
	d := r.PutManifest(t, repository, "stable", manifestType, m)
	push(t, r, config, func(got *manifest) { m = *got }, evil)
	r.PutManifest(t, repository, "stable", manifestType, m)
	f, _ := newFetcher(t, nil)
	a, err := f.Fetch(t.Context(), pkg(r.Host, d), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, old)
}

func TestConcurrentFetchesShareOneDownload(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	p, _ := newProxy(t, r, false)
	layer := noise(1, 4<<20)
	d := push(t, r, config, nil, layer)
	f, _ := newFetcher(t, nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			a, err := f.Fetch(t.Context(), pkg(p.Host, d), linux)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, a, layer)
		})
	}
	wg.Wait()
	if got := p.ranges(harness.Descriptor{Digest: "sha256:" + filepath.Base(layerPath(t, f, p.Host, d))}); len(got) != 1 {
		t.Errorf("the layer was requested %d times", len(got))
	}
}

func layerPath(t *testing.T, f *fetch.Fetcher, hostname string, d harness.Descriptor) string {
	t.Helper()
	a, err := f.Fetch(t.Context(), pkg(hostname, d), linux)
	if err != nil {
		t.Fatal(err)
	}
	return a.Layers[0].Path
}

func TestCollectKeepsWhatIsNamed(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	shared, only := noise(1, 1000), noise(2, 2000)
	keep, drop := push(t, r, `{"n":1}`, nil, shared), push(t, r, `{"n":22}`, nil, shared, only)
	f, dir := newFetcher(t, nil)
	if freed, err := f.Collect(nil); err != nil || freed != 0 {
		t.Errorf("of nothing: %d, %v", freed, err)
	}
	for _, d := range []harness.Descriptor{keep, drop} {
		if _, err := f.Fetch(t.Context(), pkg(r.Host, d), linux); err != nil {
			t.Fatal(err)
		}
	}
	partial := filepath.Join(dir, "sha256", strings.Repeat("0", 64)+".partial")
	if err := os.WriteFile(partial, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	freed, err := f.Collect([]string{keep.Digest})
	if want := int64(len(only)+len(`{"n":22}`)+5) + drop.Size; err != nil || freed != want {
		t.Errorf("freed %d, want %d: %v", freed, want, err)
	}
	if got := files(t, dir); len(got) != 3 {
		t.Errorf("left are %q", got)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	a, err := f.Fetch(t.Context(), pkg(r.Host, keep), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, shared)

	if err := f.Discard(keep.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.Layers[0].Path); !os.IsNotExist(err) {
		t.Errorf("the layer is still there: %v", err)
	}
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("left are %q", got)
	}
}
