package fetch_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

// serve answers requests whose path ends in the digest with other bytes.
func serve(d harness.Descriptor, status int, header map[string]string, body []byte) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if !strings.HasSuffix(r.URL.Path, d.Digest) {
			forward.ServeHTTP(w, r)
			return
		}
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// pushed is a package behind a proxy.
type pushed struct {
	registry        *harness.Registry
	proxy           *proxy
	bytes           []byte
	top, cfg, layer harness.Descriptor
}

func setUp(t *testing.T, size int) pushed {
	t.Helper()
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	p, _ := newProxy(t, r, false)
	s := pushed{registry: r, proxy: p, bytes: noise(7, size)}
	s.top = push(t, r, config, func(m *manifest) { s.cfg, s.layer = m.Config, m.Layers[0] }, s.bytes)
	return s
}

func TestOtherBytesAreRefused(t *testing.T) {
	s := setUp(t, 100_000)
	changed := append([]byte(nil), s.bytes...)
	changed[50_000] ^= 1
	for name, tc := range map[string]struct {
		d    harness.Descriptor
		body []byte
	}{
		"manifest":       {s.top, []byte(`{"schemaVersion":2}`)},
		"config":         {s.cfg, []byte(strings.Replace(config, "1.2", "1.3", 1))},
		"layer":          {s.layer, changed},
		"layer, longer":  {s.layer, append(s.bytes[:len(s.bytes):len(s.bytes)], 'x')},
		"layer, endless": {s.layer, append(s.bytes[:len(s.bytes):len(s.bytes)], make([]byte, 10<<20)...)},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := newFetcher(t, nil)
			s.proxy.set(serve(tc.d, 200, nil, tc.body))
			_, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
			wantError(t, err, v1.ReasonDigestMismatch, true, "other bytes", tc.d.Digest)
			for _, name := range files(t, dir) {
				if strings.HasSuffix(tc.d.Digest, name) {
					t.Error("the wrong bytes got the right name")
				}
			}
			// The registry was repaired.
			s.proxy.set(nil)
			a, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
			if err != nil {
				t.Fatal(err)
			}
			check(t, a, s.bytes)
		})
	}
}

func TestBrokenDownloadGoesOnWhereItStopped(t *testing.T) {
	s := setUp(t, 8<<20)
	f, _ := newFetcher(t, func(c *fetch.Config) { c.Attempts = 50 })
	s.proxy.set(cut(s.layer, 3<<20))
	a, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, s.bytes)
	// A connection that breaks may lose what was on its way: where exactly the
	// requests begin differs, but each begins where the last one ended.
	got := s.proxy.ranges(s.layer)
	if len(got) < 3 || got[0] != "" || !strings.HasPrefix(got[len(got)-1], "bytes=") {
		t.Errorf("requested %q", got)
	}
	if a.Downloaded != int64(len(s.bytes)) {
		t.Errorf("%d bytes for %d", a.Downloaded, len(s.bytes))
	}
}

func TestNextFetchResumes(t *testing.T) {
	s := setUp(t, 8<<20)
	once := func(c *fetch.Config) { c.Attempts = 1 }
	f, dir := newFetcher(t, once)
	s.proxy.set(cut(s.layer, 5<<20))
	_, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "where it stopped")

	partial, err := os.Stat(filepath.Join(dir, "sha256", s.layer.Digest[7:]+".partial"))
	if err != nil || partial.Size() == 0 || partial.Size() > 5<<20 {
		t.Fatalf("nothing, or too much, was kept: %v", err)
	}
	s.proxy.set(nil)
	a, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, s.bytes)
	if want := int64(len(s.bytes)) - partial.Size(); a.Downloaded != want {
		t.Errorf("%d bytes came instead of %d", a.Downloaded, want)
	}
	if got := s.proxy.ranges(s.layer); len(got) != 1 || got[0] != fmt.Sprintf("bytes=%d-", partial.Size()) {
		t.Errorf("requested %q", got)
	}
	for _, name := range files(t, dir) {
		if strings.Contains(name, ".") {
			t.Errorf("%s was left behind", name)
		}
	}
}

func TestResumeWithDifficultRegistries(t *testing.T) {
	s := setUp(t, 1<<20)
	half := s.bytes[:512<<10]
	damaged := append([]byte(nil), half...)
	damaged[9] ^= 1
	noRanges := func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		r.Header.Del("Range")
		forward.ServeHTTP(w, r)
	}
	onlyOnce := func(first func(http.ResponseWriter, *http.Request, http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			if strings.HasSuffix(r.URL.Path, s.layer.Digest) && r.Header.Get("Range") != "" {
				first(w, r, forward)
				return
			}
			forward.ServeHTTP(w, r)
		}
	}
	for name, tc := range map[string]struct {
		partial []byte
		tamper  func(http.ResponseWriter, *http.Request, http.Handler)
	}{
		"no ranges":            {half, noRanges},
		"range refused":        {half, onlyOnce(serve(s.layer, 416, nil, nil))},
		"another range":        {half, onlyOnce(serve(s.layer, 206, map[string]string{"Content-Range": "bytes 0-9/10"}, s.bytes[:10]))},
		"no Content-Range":     {half, onlyOnce(serve(s.layer, 206, nil, s.bytes[512<<10:]))},
		"wrong rest":           {half, onlyOnce(serve(s.layer, 206, map[string]string{"Content-Range": "bytes 524288-1048575/1048576"}, make([]byte, 512<<10)))},
		"damaged here":         {damaged, nil},
		"too long here":        {append(s.bytes[:len(s.bytes):len(s.bytes)], "more"...), nil},
		"complete here":        {s.bytes, nil},
		"complete but damaged": {append(damaged, s.bytes[512<<10:]...), nil},
		"empty here":           {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := newFetcher(t, nil)
			if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "sha256", s.layer.Digest[7:]+".partial"), tc.partial, 0o600); err != nil {
				t.Fatal(err)
			}
			s.proxy.set(tc.tamper)
			a, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
			if err != nil {
				t.Fatal(err)
			}
			check(t, a, s.bytes)
		})
	}
}

func TestAbsentPackagesAndRegistries(t *testing.T) {
	s := setUp(t, 1000)
	f, _ := newFetcher(t, nil)
	absent := s.top
	absent.Digest = "sha256:" + strings.Repeat("ab", 32)
	_, err := f.Fetch(t.Context(), pkg(s.registry.Host, absent), linux)
	wantError(t, err, v1.ReasonPackageNotFound, true, "push the package", absent.Digest)

	elsewhere := pkg(s.registry.Host, s.top)
	elsewhere.Repository += "/else"
	_, err = f.Fetch(t.Context(), elsewhere, linux)
	wantError(t, err, v1.ReasonPackageNotFound, true, "correct its ref")

	s.proxy.set(serve(s.layer, 404, nil, []byte("gone")))
	_, err = f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	wantError(t, err, v1.ReasonPackageNotFound, true, s.layer.Digest)

	s.proxy.set(serve(s.layer, 503, map[string]string{"Retry-After": "1"}, nil))
	_, err = f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "503")
	if n := len(s.proxy.ranges(s.layer)); n != 2 {
		t.Errorf("%d attempts instead of 2", n)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	fresh, _ := newFetcher(t, nil)
	_, err = fresh.Fetch(t.Context(), pkg(nobody, s.top), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, nobody, "check the registry")
	_, err = fresh.Fetch(t.Context(), pkg("registry.invalid", s.top), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "registry.invalid")
}

// endless never stops talking.
func endless(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	chunk := make([]byte, 1<<20)
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// silent answers nothing, after the headers if those are wanted.
func silent(d harness.Descriptor, headers bool) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if !strings.HasSuffix(r.URL.Path, d.Digest) {
			forward.ServeHTTP(w, r)
			return
		}
		if headers {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
}

func TestEndlessAndSilentAnswers(t *testing.T) {
	s := setUp(t, 1000)
	f, _ := newFetcher(t, nil)
	s.proxy.set(endless)
	_, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	wantError(t, err, v1.ReasonPackageInvalid, true, "larger than it may be")
	s.proxy.set(func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if strings.HasSuffix(r.URL.Path, s.top.Digest) {
			endless(w, r, forward)
			return
		}
		forward.ServeHTTP(w, r)
	})
	_, err = f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	wantError(t, err, v1.ReasonPackageInvalid, true, "larger than it may be")
	f, _ = newFetcher(t, func(c *fetch.Config) { c.StallTimeout = 200 * time.Millisecond })
	for _, headers := range []bool{false, true} {
		s.proxy.set(silent(s.layer, headers))
		_, err = f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
		wantError(t, err, v1.ReasonRegistryUnreachable, true)
	}
}

func TestContextStopsTheDownload(t *testing.T) {
	s := setUp(t, 4<<20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.proxy.set(func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if !strings.HasSuffix(r.URL.Path, s.layer.Digest) {
			forward.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write(s.bytes[:2<<20])
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done() // the child was killed
	})
	f, dir := newFetcher(t, nil)
	_, err := f.Fetch(ctx, pkg(s.proxy.Host, s.top), linux)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sha256", s.layer.Digest[7:])); !os.IsNotExist(err) {
		t.Errorf("half a layer got its final name: %v", err)
	}
	s.proxy.set(nil)
	a, err := f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, s.bytes)
}

func TestFullDisks(t *testing.T) {
	s := setUp(t, 4<<20)
	t.Run("reserve", func(t *testing.T) {
		f, dir := newFetcher(t, func(c *fetch.Config) { c.MinFree = 1 << 60 })
		_, err := f.Fetch(t.Context(), pkg(s.registry.Host, s.top), linux)
		wantError(t, err, v1.ReasonNoSpace, true, dir, "make room")
	})
	t.Run("limit on files", func(t *testing.T) {
		f, _ := newFetcher(t, nil)
		t.Setenv(fileLimitEnv, fmt.Sprint(1<<20))
		_, err := f.Fetch(t.Context(), pkg(s.registry.Host, s.top), linux)
		wantError(t, err, v1.ReasonNoSpace, true, "make room")
		t.Setenv(fileLimitEnv, "")
		a, err := f.Fetch(t.Context(), pkg(s.registry.Host, s.top), linux)
		if err != nil {
			t.Fatal(err)
		}
		check(t, a, s.bytes)
	})
	t.Run("small disk", func(t *testing.T) {
		if os.Geteuid() != 0 {
			return // only root may mount; the limit above meets the same code
		}
		disk := t.TempDir()
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
			t.Fatalf("cannot mount a tmpfs to fill: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(disk, 0); err != nil {
				t.Error(err)
			}
		})
		f, _ := newFetcher(t, func(c *fetch.Config) { c.BlobDir = filepath.Join(disk, "blobs") })
		_, err := f.Fetch(t.Context(), pkg(s.registry.Host, s.top), linux)
		wantError(t, err, v1.ReasonNoSpace, true, "cannot begin", "make room")

		// Filled up by somebody else while the download runs.
		s.proxy.set(func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			if strings.HasSuffix(r.URL.Path, s.cfg.Digest) {
				if err := os.WriteFile(filepath.Join(disk, "ballast"), make([]byte, 2<<20), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
					t.Error(err)
				}
			}
			forward.ServeHTTP(w, r)
		})
		_, err = f.Fetch(t.Context(), pkg(s.proxy.Host, s.top), linux)
		wantError(t, err, v1.ReasonNoSpace, true, "make room")
	})
	t.Run("unwritable", func(t *testing.T) {
		f, _ := newFetcher(t, func(c *fetch.Config) { c.BlobDir = "/proc/self/blobs" })
		_, err := f.Fetch(t.Context(), pkg(s.registry.Host, s.top), linux)
		wantError(t, err, v1.ReasonInternal, true, "cannot make the blob folder")
	})
}

func TestCredentials(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{User: "node", Password: "secret"})
	layer := noise(1, 1000)
	d := push(t, r, config, nil, layer)
	file := filepath.Join(t.TempDir(), "auth.json")
	write := func(key, user string) {
		auth := base64.StdEncoding.EncodeToString([]byte(user + ":secret"))
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, key, auth), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, _ := newFetcher(t, nil)
	_, err := f.Fetch(t.Context(), pkg(r.Host, d), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "registryAuthFile")

	withFile := func(c *fetch.Config) { c.AuthFile = file }
	f, _ = newFetcher(t, withFile)
	_, err = f.Fetch(t.Context(), pkg(r.Host, d), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "cannot read registry credentials", file)
	write(r.Host, "somebody")
	_, err = f.Fetch(t.Context(), pkg(r.Host, d), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "check the credentials in "+file)

	for _, key := range []string{r.Host, r.Host + "/gpuaas", r.Host + "/" + repository, "http://" + r.Host} {
		write(key, "node")
		f, _ := newFetcher(t, withFile)
		a, err := f.Fetch(t.Context(), pkg(r.Host, d), linux)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		check(t, a, layer)
	}
}

func TestCertificates(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	p, server := newProxy(t, r, true)
	layer := noise(1, 1000)
	d := push(t, r, config, nil, layer)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _ := newFetcher(t, nil)
	_, err := f.Fetch(t.Context(), pkg(p.Host, d), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "caFile")
	f, _ = newFetcher(t, func(c *fetch.Config) { c.Registries = []fetch.Registry{{Host: p.Host, CAFile: ca}} })
	a, err := f.Fetch(t.Context(), pkg(p.Host, d), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, layer)
}

func TestRedirects(t *testing.T) {
	s := setUp(t, 1000)
	_, port, err := net.SplitHostPort(s.proxy.Host)
	if err != nil {
		t.Fatal(err)
	}
	// "localhost" sends its clients to the literal 127.0.0.1.
	s.proxy.set(func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		if strings.HasSuffix(r.URL.Path, s.layer.Digest) {
			http.Redirect(w, r, "http://"+s.registry.Host+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		forward.ServeHTTP(w, r)
	})
	f, _ := newFetcher(t, nil)
	_, err = f.Fetch(t.Context(), pkg("localhost:"+port, s.top), linux)
	wantError(t, err, v1.ReasonRegistryUnreachable, true, "private address 127.0.0.1", "allowPrivateRedirects")
	f, _ = newFetcher(t, func(c *fetch.Config) { c.AllowPrivateRedirects = true })
	a, err := f.Fetch(t.Context(), pkg("localhost:"+port, s.top), linux)
	if err != nil {
		t.Fatal(err)
	}
	check(t, a, s.bytes)
}

func TestRunChildRefusesNonsense(t *testing.T) {
	if err := fetch.RunChild(t.Context(), strings.NewReader("hello"), io.Discard, io.Discard); err == nil {
		t.Error("it was accepted")
	}
}
