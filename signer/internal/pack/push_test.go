package pack

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func registryHost(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestPushAndInspect(t *testing.T) {
	host := registryHost(t)
	out := filepath.Join(t.TempDir(), "out")
	built, err := Build(demo(t), out, BuildOptions{})
	must(t, err)
	var done, total int64
	opts := RemoteOptions{Progress: func(d, n int64) { done, total = d, n }}
	for range 2 { // pushing again is fine
		p, err := Push(context.Background(), out, host+"/team/demo", opts)
		must(t, err)
		if p.Digest != built.Digest || p.Repository != host+"/team/demo" || p.Tag != "1.2.3" {
			t.Errorf("pushed %+v, built %s", p, built.Digest)
		}
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	for _, ref := range []string{host + "/team/demo@" + built.Digest, host + "/team/demo:1.2.3"} {
		info, err := InspectRemote(context.Background(), ref, RemoteOptions{})
		must(t, err)
		if info.Digest != built.Digest || len(info.Platforms) != 2 || info.Reference != host+"/team/demo@"+built.Digest {
			t.Errorf("inspected %+v", info)
		}
	}
}

func TestPushErrors(t *testing.T) {
	host := registryHost(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(refusing.Close)
	out := filepath.Join(t.TempDir(), "out")
	_, err := Build(demo(t), out, BuildOptions{})
	must(t, err)
	for _, tc := range []struct{ name, layout, ref, want string }{
		{"digest in the reference", out, host + "/x@sha256:" + strings.Repeat("0", 64), "the digest follows from the package"},
		{"no registry", out, "team/demo", "begin with a registry host"},
		{"bad name", out, host + "/Team/demo", "cannot push"},
		{"no layout", t.TempDir(), host + "/x", "cannot read the layout"},
		{"unreachable", out, "127.0.0.1:1/x", "can't be reached"},
		{"unauthorized", out, strings.TrimPrefix(refusing.URL, "http://") + "/x", "refused the credentials"},
		{"private address without TLS", out, "10.255.255.1/x", "--plain-http"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Push(context.Background(), tc.layout, tc.ref, RemoteOptions{Progress: func(int64, int64) {}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
	if _, err := InspectRemote(context.Background(), host+"/absent:1", RemoteOptions{}); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error is %v", err)
	}
}

func TestPlainHTTPOnlyToLoopback(t *testing.T) {
	var asked []string
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		return nil, errors.New("asked")
	})
	for url, allowed := range map[string]bool{
		"http://127.0.0.1:5000/v2/": true, "http://localhost/v2/": true, "http://[::1]:5000/v2/": true,
		"http://10.0.0.1/v2/": false, "http://registry.local/v2/": false, "https://10.0.0.1/v2/": true,
	} {
		asked = nil
		req, err := http.NewRequest(http.MethodGet, url, nil)
		must(t, err)
		ask := func(g httpGuard) error {
			resp, err := g.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		}
		err = ask(httpGuard{base: base})
		if errors.Is(err, errPlainHTTP) == allowed || (len(asked) == 1) != allowed {
			t.Errorf("%s: %v", url, err)
		}
		if err := ask(httpGuard{base: base, plainHTTP: true}); errors.Is(err, errPlainHTTP) {
			t.Errorf("%s with --plain-http: %v", url, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

const (
	zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	ones  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

func TestPin(t *testing.T) {
	pushed := &Pushed{
		Repository: "registry.example.com/gpuaas/demo", Digest: ones,
		Info: &Info{Name: "demo", Version: "1.10", Platforms: []PlatformInfo{{Platform: "linux/amd64"}, {Platform: "linux/arm64"}}},
	}
	head := "apiVersion: fleet.gpuaas.dev/v1\nkind: Package\nname: demo\n"
	for _, tc := range []struct{ name, before, after string }{
		{"new file", "", head + `ref: registry.example.com/gpuaas/demo
digest: ` + ones + `
version: "1.10"
platforms:
  - linux/amd64
  - linux/arm64
`},
		{"one line changes, the rest stays byte for byte", "# Ours.\n\n" + head + `ref:   'registry.example.com/gpuaas/demo'   # where

digest: "` + zeros + `" # ünï; by package push
version: "1.9"
platforms:   [linux/arm64,
              linux/amd64]
`, "# Ours.\n\n" + head + `ref:   'registry.example.com/gpuaas/demo'   # where

digest: ` + ones + ` # ünï; by package push
version: "1.10"
platforms:   [linux/arm64,
              linux/amd64]
`},
		{"platforms and version are added, comments stay", "# Ours.\n" + head + `ref: registry.example.com/gpuaas/demo
# Pinned.
digest: ` + zeros + "\n", "# Ours.\n" + head + `ref: registry.example.com/gpuaas/demo
# Pinned.
digest: ` + ones + `
version: "1.10"
platforms: [linux/amd64, linux/arm64]
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "demo.yaml")
			if tc.before != "" {
				must(t, os.WriteFile(file, []byte(tc.before), 0o644))
			}
			for i, wantChanged := range []bool{true, false} {
				changed, err := Pin(file, pushed)
				must(t, err)
				if changed != wantChanged {
					t.Errorf("run %d: changed is %v", i, changed)
				}
			}
			got, err := os.ReadFile(file)
			must(t, err)
			if string(got) != tc.after {
				t.Errorf("got\n%s\nwant\n%s", got, tc.after)
			}
			pin, err := v1.DecodePackage(file, got)
			must(t, err)
			if pin.Digest != ones || pin.Version != "1.10" {
				t.Errorf("pin is %+v", pin)
			}
		})
	}
	t.Run("another package's file", func(t *testing.T) {
		if _, err := Pin(filepath.Join(t.TempDir(), "other.yaml"), pushed); err == nil {
			t.Error("pinned in another package's file")
		}
	})
}
