package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

// gate is a server before another one, which can be shut and counts.
type gate struct {
	*httptest.Server
	shut     atomic.Bool
	requests atomic.Int64
}

func newGate(t *testing.T, next http.Handler) *gate {
	g := &gate{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		g.requests.Add(1)
		if g.shut.Load() {
			http.Error(rw, "out of order", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(rw, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// The git server is out of order when the agent starts, and again later: the
// last verified state is enforced, status says so, and the agent comes back by
// itself without knocking all the time.
func TestGitServerOutOfOrder(t *testing.T) {
	t.Parallel()
	git := http.Handler(nil)
	g := newGate(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { git.ServeHTTP(rw, r) }))
	w := newWorld(t, options{gitURL: g.URL, poll: time.Second, staleAfter: 3 * time.Second})
	git = w.git
	g.shut.Store(true)
	w.startAgent()
	c := w.conditionIs(v1.Fresh, v1.False, v1.ReasonSourceUnreachable)
	w.says(c.Message, "ever fetched")
	s := w.exits(4)
	w.says(s.LastError.Element+": "+s.LastError.Message, "502", g.URL)
	w.install()
	w.merge("run the story")
	g.shut.Store(false)
	w.converged()
	w.answers("one")

	g.shut.Store(true)
	c = w.conditionIs(v1.Fresh, v1.False, v1.ReasonSourceUnreachable)
	w.says(c.Message, "3s")
	w.exits(4)
	// Drift is repaired, a restarted agent enforces what it knows.
	w.must(os.Remove(filepath.Join(w.node.etc, "story.env")))
	w.eventually("repaired", func() error { _, err := os.Stat(filepath.Join(w.node.etc, "story.env")); return err })
	w.stopAgent()
	w.systemctl("stop", service)
	w.startAgent()
	w.answers("one")
	before, from := g.requests.Load(), time.Now()
	time.Sleep(8 * time.Second)
	n, seconds := g.requests.Load()-before, time.Since(from).Seconds()
	t.Logf("%d requests in %.0f s to a server that is out of order", n, seconds)
	if float64(n) > seconds {
		t.Errorf("%d requests in %.0f s", n, seconds)
	}
	w.exits(4)

	w.edit(profile, "VALUE: one", "VALUE: two")
	w.merge("second value")
	g.shut.Store(false)
	w.converged()
	w.answers("two")
	w.conditionIs(v1.Fresh, v1.True, v1.ReasonOK)
	w.exits(0)
}

// The registry is out of order, then lacks the package, then serves other bytes;
// the service keeps running, and the agent takes the package when it can.
func TestRegistryTrouble(t *testing.T) {
	t.Parallel()
	registry := harness.NewRegistry(t, harness.RegistryOptions{})
	target, err := url.Parse("http://" + registry.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	var tamper, lack atomic.Bool
	proxy.ModifyResponse = func(r *http.Response) error {
		if !tamper.Load() || !strings.Contains(r.Request.URL.Path, "/blobs/") || r.StatusCode != http.StatusOK && r.StatusCode != http.StatusPartialContent {
			return nil
		}
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if len(data) > 1000 {
			data[len(data)/2] ^= 1
		}
		r.Body = io.NopCloser(bytes.NewReader(data))
		return nil
	}
	g := newGate(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if lack.Load() && strings.Contains(r.URL.Path, "/manifests/") {
			http.NotFound(rw, r)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	w := newWorld(t, options{registry: registry, registryHost: strings.TrimPrefix(g.URL, "http://")})
	w.startAgent()
	w.install()
	w.deliver("run the story")
	list := w.list(w.node.etc, w.node.units)
	current, err := os.Readlink(filepath.Join(w.node.packages, "story", "current"))
	w.must(err)
	before := w.runs(service)

	for i, trouble := range []struct {
		name   string
		set    func(bool)
		reason v1.Reason
		words  []string
	}{
		{"out of order", g.shut.Store, v1.ReasonRegistryUnreachable, []string{"502"}},
		{"package absent", lack.Store, v1.ReasonPackageNotFound, []string{"push the package"}},
		{"other bytes", tamper.Store, v1.ReasonDigestMismatch, []string{"sha256:"}},
	} {
		w.push(w.packageFolder("story", fmt.Sprint(i+2), nil))
		trouble.set(true)
		w.merge(trouble.name)
		requests := g.requests.Load()
		w.hangup()
		c := w.conditionIs(v1.Staged, v1.False, trouble.reason)
		t.Logf("%s: %s", trouble.name, c.Message)
		w.says(c.Message, trouble.words...)
		w.exits(3)
		w.same(list, w.list(w.node.etc, w.node.units))
		if now, err := os.Readlink(filepath.Join(w.node.packages, "story", "current")); err != nil || now != current {
			t.Errorf("current -> %s: %v", now, err)
		}
		if u := w.runs(service); u["InvocationID"] != before["InvocationID"] {
			t.Error("the service was restarted")
		}
		t.Logf("%s: %d requests to the registry so far", trouble.name, g.requests.Load()-requests)
		trouble.set(false)
		w.hangup()
		w.converged()
		if a := w.answers("one"); a.Version != fmt.Sprint(i+2) {
			t.Errorf("answer: %+v", a)
		}
		before = w.runs(service)
		current, err = os.Readlink(filepath.Join(w.node.packages, "story", "current"))
		w.must(err)
		w.exits(0)
	}

	// Without a new manifest and without a signal: the agent tries again by itself.
	w.push(w.packageFolder("story", "5", nil))
	w.merge("version 5")
	w.must(registry.Stop())
	w.hangup()
	w.conditionIs(v1.Staged, v1.False, v1.ReasonRegistryUnreachable)
	w.must(registry.Start(context.Background()))
	w.converged()
	w.exits(0)
	left, err := filepath.Glob(filepath.Join(w.node.state, "blobs", "*", "*"))
	w.must(err)
	if len(left) > 0 {
		t.Errorf("left in the blob store: %v", left)
	}
}

// A package for another platform is refused before anything happens.
func TestPackageOfAnotherPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	other := "linux/arm64"
	if runtime.GOARCH == "arm64" {
		other = "linux/amd64"
	}
	dir := w.packageFolder("story", "1", nil)
	source, err := os.ReadFile(filepath.Join(dir, "package.yaml"))
	w.must(err)
	w.must(writeFile(filepath.Join(dir, "package.yaml"), strings.Replace(string(source), "root: root\n", "platforms: {"+other+": root}\n", 1)))
	w.push(dir)
	w.write(profile, w.storyProfile())
	before := w.list(w.node.etc, w.node.units)
	w.merge("run the story")
	w.hangup()
	c := w.conditionIs(v1.Staged, v1.False, v1.ReasonPlatform)
	t.Log(c.Message)
	w.says(c.Message, other, "linux/"+runtime.GOARCH)
	w.exits(1)
	w.same(before, w.list(w.node.etc, w.node.units))
	w.gone(service)
}
