package fetch_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	gzipLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	repository   = "gpuaas/thing"
	fileLimitEnv = "FETCH_TEST_FILE_LIMIT"
)

var linux = fetch.Platform{OS: "linux", Architecture: "amd64"}

// TestMain lets the test binary be the child, as the agent's binary is its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == fetch.ChildCommand {
		if n, err := strconv.ParseUint(os.Getenv(fileLimitEnv), 10, 64); err == nil {
			if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
				panic(err)
			}
		}
		if err := fetch.RunChild(context.Background(), os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0] = seed
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

// manifest is what push encodes; tests bend it.
type manifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType,omitempty"`
	Config        harness.Descriptor   `json:"config"`
	Layers        []harness.Descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Manifests     []harness.Descriptor `json:"manifests"`
}

// push uploads a package with the given layers; bend may change its manifest.
func push(t testing.TB, r *harness.Registry, config string, bend func(*manifest), layers ...[]byte) harness.Descriptor {
	t.Helper()
	m := manifest{SchemaVersion: 2, MediaType: manifestType, ArtifactType: fetch.ArtifactType}
	m.Config = r.PutBlob(t, repository, fetch.ConfigMediaType, []byte(config))
	for _, l := range layers {
		m.Layers = append(m.Layers, r.PutBlob(t, repository, gzipLayer, l))
	}
	if bend != nil {
		bend(&m)
	}
	return r.PutManifest(t, repository, "", manifestType, m)
}

func pkg(hostname string, d harness.Descriptor) task.Package {
	return task.Package{Name: "thing", Repository: hostname + "/" + repository, Digest: d.Digest}
}

// newFetcher has short patience, so that failures come soon.
func newFetcher(t testing.TB, bend func(*fetch.Config)) (*fetch.Fetcher, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blobs")
	c := fetch.Config{BlobDir: dir, Attempts: 2, Backoff: time.Millisecond}
	if bend != nil {
		bend(&c)
	}
	f, err := fetch.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f, c.BlobDir
}

// check verifies the artifact's files by hand.
func check(t testing.TB, a fetch.Artifact, layers ...[]byte) {
	t.Helper()
	if len(a.Layers) != len(layers) {
		t.Fatalf("%d layers, want %d", len(a.Layers), len(layers))
	}
	for i, l := range a.Layers {
		data, err := os.ReadFile(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != string(layers[i]) || l.Size != int64(len(data)) || l.Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(data)) {
			t.Errorf("layer %d is not what was pushed", i)
		}
	}
}

// wantError checks that err is what status can show, and returns it.
func wantError(t testing.TB, err error, reason v1.Reason, retry bool, says ...string) {
	t.Helper()
	var e *host.Error
	if !errors.As(err, &e) {
		t.Fatalf("no host.Error: %v", err)
	}
	if e.Reason != reason || e.Retry != retry || e.Component != "fetch" || e.Element != "package/thing" {
		t.Errorf("got %s, retry %v, of %s %s; want %s, retry %v: %v", e.Reason, e.Retry, e.Component, e.Element, reason, retry, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q doesn't say %q", err, s)
		}
	}
}

// files lists the blob folder.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "sha256"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// proxy stands before a registry and tampers.
type proxy struct {
	Host string

	mu       sync.Mutex
	requests []string // "path range"
	tamper   func(w http.ResponseWriter, r *http.Request, forward http.Handler)
}

func newProxy(t testing.TB, r *harness.Registry, secure bool) (*proxy, *httptest.Server) {
	t.Helper()
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: r.Host})
	p := &proxy{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r.URL.Path+" "+r.Header.Get("Range"))
		tamper := p.tamper
		p.mu.Unlock()
		if tamper == nil {
			forward.ServeHTTP(w, r)
			return
		}
		tamper(w, r, forward)
	}))
	// Broken connections are what the tests are about.
	quiet := log.New(io.Discard, "", 0)
	server.Config.ErrorLog, forward.ErrorLog = quiet, quiet
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	p.Host = server.Listener.Addr().String()
	return p, server
}

func (p *proxy) set(tamper func(w http.ResponseWriter, r *http.Request, forward http.Handler)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper, p.requests = tamper, nil
}

// ranges lists the Range headers of the requests for a blob.
func (p *proxy) ranges(d harness.Descriptor) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.requests {
		if path, rng, _ := strings.Cut(r, " "); strings.HasSuffix(path, "/blobs/"+d.Digest) {
			all = append(all, rng)
		}
	}
	return all
}

// cut breaks the connection after n bytes of each answer about the blob.
func cut(d harness.Descriptor, n int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if !strings.HasSuffix(r.URL.Path, d.Digest) {
			forward.ServeHTTP(w, r)
			return
		}
		forward.ServeHTTP(&cutter{ResponseWriter: w, left: n}, r)
		panic(http.ErrAbortHandler)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.left == 0 {
		return 0, errors.New("cut")
	}
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.left)])
	c.left -= n
	if err == nil && c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
	}
	return n, err
}
