package source_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/source"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

const secret = "s3cret-t0ken"

func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAPollWithoutNewsIsOneSmallRequest(t *testing.T) {
	server := harness.NewGitServer(t, harness.GitServerOptions{})
	repo := harness.NewGitRepo(t, filepath.Join(server.Root, "r.git"))
	tip := repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	for i := range 300 { // as a forge has one for each pull request
		repo.MustGit(t, "update-ref", fmt.Sprintf("refs/pull/%d/head", i), tip)
	}
	s := newSource(t, config(t, server.URL+"/r.git"))
	poll(t, s, "", tip, want(1))
	server.Reset()
	nothingNew(t, s, tip)
	if requests := server.Requests(); len(requests) != 1 || requests[0].Method != http.MethodPost {
		t.Errorf("it took %v", requests)
	}
	if in, out := server.WireBytes(); in+out >= 1024 {
		t.Errorf("it took %d bytes in and %d out", in, out)
	}
}

func TestBasicCredentials(t *testing.T) {
	for name, opts := range map[string]harness.GitServerOptions{
		"version 2": {User: "git", Password: secret},
		"version 0": {User: "git", Password: secret, V0Only: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := overHTTP(t, opts)
			tip := commit(t, p, 1)
			refused(t, newSource(t, p.config), "", v1.ReasonSourceUnreachable, "tokenFile")

			c := p.config
			c.TokenFile = write(t, "token", "wrong\n", 0o600)
			s := newSource(t, c)
			refused(t, s, "", v1.ReasonSourceUnreachable, "401")
			if err := os.WriteFile(c.TokenFile, []byte(secret+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			poll(t, s, "", tip, want(1)) // the file is read again

			c = p.config
			c.URL = strings.Replace(c.URL, "://", "://git:"+secret+"@", 1)
			poll(t, newSource(t, c), "", tip, want(1))
		})
	}
}

func TestBadCredentialFiles(t *testing.T) {
	p := overHTTP(t, harness.GitServerOptions{})
	commit(t, p, 1)
	for name, tc := range map[string]struct {
		change func(*source.Config)
		says   string
	}{
		"missing": {func(c *source.Config) { c.TokenFile = "/does/not/exist" }, "/does/not/exist"},
		"empty":   {func(c *source.Config) { c.TokenFile = write(t, "token", "\n", 0o600) }, "empty"},
		"open":    {func(c *source.Config) { c.TokenFile = write(t, "token", "x", 0o644) }, "chmod"},
		"huge":    {func(c *source.Config) { c.TokenFile = write(t, "token", strings.Repeat("x", 1<<20), 0o600) }, "more than"},
		"no ca":   {func(c *source.Config) { c.CAFile = "/does/not/exist" }, "caFile"},
		"bad ca":  {func(c *source.Config) { c.CAFile = write(t, "ca", "no certificate", 0o644) }, "no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.config
			tc.change(&c)
			refused(t, newSource(t, c), "", v1.ReasonConfig, tc.says)
		})
	}
}

func TestOwnCA(t *testing.T) {
	backend := harness.NewGitServer(t, harness.GitServerOptions{})
	repo := harness.NewGitRepo(t, filepath.Join(backend.Root, "r.git"))
	tip := repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	server := httptest.NewUnstartedServer(backend)
	server.Config.ErrorLog = quiet()
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := config(t, server.URL+"/r.git")
	refused(t, newSource(t, c), "", v1.ReasonSourceUnreachable, "source.caFile")
	c.CAFile = write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})), 0o644)
	s := newSource(t, c)
	poll(t, s, "", tip, want(1))
	nothingNew(t, s, tip)
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	url := "http://" + secret + ":" + secret + "@" + addr + "/r.git"
	s := newSource(t, config(t, url))
	refused(t, s, "", v1.ReasonSourceUnreachable, "refused")
	_, err = s.Poll(t.Context(), "")
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error holds the password: %v", err)
	}
	p := overHTTP(t, harness.GitServerOptions{})
	p.config.URL += "-not"
	refused(t, newSource(t, p.config), "", v1.ReasonSourceUnreachable, "404")
}

// TestServerComesBack goes through an outage, and a server that is replaced by
// one that speaks the old protocol.
func TestServerComesBack(t *testing.T) {
	root := t.TempDir()
	repo := harness.NewGitRepo(t, filepath.Join(root, "r.git"))
	tip := repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	server, err := harness.StartGitServer(harness.GitServerOptions{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(server.URL, "http://")
	s := newSource(t, config(t, server.URL+"/r.git"))
	poll(t, s, "", tip, want(1))
	for _, v0 := range []bool{true, false} {
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		refused(t, s, tip, v1.ReasonSourceUnreachable, "refused")
		if server, err = harness.StartGitServer(harness.GitServerOptions{Root: root, Addr: addr, V0Only: v0}); err != nil {
			t.Fatal(err)
		}
		nothingNew(t, s, tip)
		tip = repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(2)})
		poll(t, s, "", tip, want(2))
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
}

// hostile serves whatever a test wants.
func hostile(t *testing.T, handler http.HandlerFunc) source.Config {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = quiet()
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return config(t, server.URL+"/r.git")
}

func endless(w io.Writer, chunk string) {
	for {
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
	}
}

const (
	advertisement = "application/x-git-upload-pack-advertisement"
	answer        = "application/x-git-upload-pack-result"
	greeting      = "000eversion 2\n000cls-refs\n0012fetch=shallow\n0000"
)

func TestHostileServers(t *testing.T) {
	for name, tc := range map[string]struct {
		reason  v1.Reason
		says    string
		handler http.HandlerFunc
	}{
		"an error without end": {v1.ReasonSourceUnreachable, "500", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, strings.Repeat("no ", 1000))
		}},
		"a page instead": {v1.ReasonSourceUnreachable, "text/html", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			endless(w, "<p>hello")
		}},
		"capabilities without end": {v1.ReasonSourceLimits, "capabilities", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, "000eversion 2\n")
			endless(w, "0008abc\n")
		}},
		"refs without end": {v1.ReasonSourceLimits, "limit", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, "001e# service=git-upload-pack\n0000")
			endless(w, fmt.Sprintf("003d%040d refs/heads/x123\n", 1))
		}},
		"an answer without end": {v1.ReasonSourceLimits, "limit", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Type", advertisement)
				_, _ = io.WriteString(w, greeting)
				return
			}
			w.Header().Set("Content-Type", answer)
			endless(w, fmt.Sprintf("0041%040d refs/heads/signed12\n", 1))
		}},
		"nonsense": {v1.ReasonSourceUnreachable, "not an answer of a git server", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, "zzzz")
		}},
		"a refusal": {v1.ReasonSourceUnreachable, "the server says: go away", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, "0010ERR go away\n")
		}},
		"a redirect to elsewhere": {v1.ReasonSourceUnreachable, "http://other.example.com/r.git", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://other.example.com/r.git/info/refs?service=git-upload-pack", http.StatusFound)
		}},
		"a redirect in a circle": {v1.ReasonSourceUnreachable, "redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}},
		"sha256": {v1.ReasonSourceUnreachable, "only sha1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, "000eversion 2\n000cls-refs\n0012fetch=shallow\n0019object-format=sha256\n0000")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, newSource(t, hostile(t, tc.handler)), "", tc.reason, tc.says)
		})
	}
}

// packServer shows a branch and answers a fetch with what send writes.
func packServer(t *testing.T, send func(w io.Writer)) source.Config {
	return hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", advertisement)
			_, _ = io.WriteString(w, greeting)
			return
		}
		w.Header().Set("Content-Type", answer)
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "ls-refs") {
			line := fmt.Sprintf("%040d refs/heads/signed\n", 1)
			_, _ = fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
			return
		}
		_, _ = io.WriteString(w, "000dpackfile\n")
		send(w)
	})
}

func TestHostilePacks(t *testing.T) {
	band := func(w io.Writer, text string) { _, _ = fmt.Fprintf(w, "%04x\x01%s", len(text)+5, text) }
	for name, tc := range map[string]struct {
		reason v1.Reason
		says   string
		send   func(w io.Writer)
	}{
		"without end": {v1.ReasonSourceLimits, "limit", func(w io.Writer) {
			endless(w, fmt.Sprintf("%04x\x02%s", 1005, strings.Repeat("p", 1000)))
		}},
		"a billion objects": {v1.ReasonSourceLimits, "objects", func(w io.Writer) { band(w, "PACK\x00\x00\x00\x02\x40\x00\x00\x00") }},
		"cut":               {v1.ReasonSourceUnreachable, "ended early", func(w io.Writer) { band(w, "PACK\x00\x00\x00\x02\x00\x00\x00\x01") }},
		"no pack":           {v1.ReasonSourceUnreachable, "pack", func(w io.Writer) { band(w, "PICK\x00\x00\x00\x02\x00\x00\x00\x01"); _, _ = io.WriteString(w, "0000") }},
		"something else":    {v1.ReasonSourceUnreachable, "doesn't send object", func(w io.Writer) { band(w, emptyPack); _, _ = io.WriteString(w, "0000") }},
		"an error":          {v1.ReasonSourceUnreachable, "out of disk", func(w io.Writer) { _, _ = fmt.Fprintf(w, "%04x\x03out of disk", 16) }},
		"huge object": {v1.ReasonSourceLimits, "inflated", func(w io.Writer) {
			band(w, "PACK\x00\x00\x00\x02\x00\x00\x00\x01\xb0\xff\xff\xff\xff\x7f")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := packServer(t, tc.send)
			c.Limits.Wire = 1 << 20
			refused(t, newSource(t, c), "", tc.reason, tc.says)
		})
	}
}

const emptyPack = "PACK\x00\x00\x00\x02\x00\x00\x00\x00\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e"

func TestDeadline(t *testing.T) {
	forever := make(chan struct{})
	configs := map[string]source.Config{
		"poll":  hostile(t, func(http.ResponseWriter, *http.Request) { <-forever }),
		"fetch": packServer(t, func(w io.Writer) { w.(http.Flusher).Flush(); <-forever }),
	}
	t.Cleanup(func() { close(forever) }) // before the servers stop
	for name, c := range configs {
		t.Run(name, func(t *testing.T) {
			c.Timeout = 3 * time.Second
			refused(t, newSource(t, c), "", v1.ReasonSourceUnreachable, "no answer within 3s")
		})
	}
}

func TestRedirectWithinTheHost(t *testing.T) {
	backend := harness.NewGitServer(t, harness.GitServerOptions{})
	repo := harness.NewGitRepo(t, filepath.Join(backend.Root, "new.git"))
	tip := repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	c := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if rest, moved := strings.CutPrefix(r.URL.Path, "/r.git"); moved {
			r.URL.Path = "/new.git" + rest
			http.Redirect(w, r, r.URL.String(), http.StatusMovedPermanently)
			return
		}
		backend.ServeHTTP(w, r)
	})
	s := newSource(t, c)
	poll(t, s, "", tip, want(1))
	backend.Reset()
	nothingNew(t, s, tip)
	if n := len(backend.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestSSHTrouble(t *testing.T) {
	p := overSSH(t, harness.SSHOptions{AcceptProtocol: true})
	tip := commit(t, p, 1)
	other := harness.NewSSHServer(t, harness.SSHOptions{})
	empty := write(t, "known_hosts", "", 0o644)
	known, err := os.ReadFile(other.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := os.ReadFile(p.config.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(string(mine), " ")
	_, key, _ := strings.Cut(string(known), " ")
	for name, tc := range map[string]struct {
		change func(*source.Config)
		reason v1.Reason
		says   string
	}{
		"unknown host": {func(c *source.Config) { c.KnownHostsFile = empty }, v1.ReasonSourceUnreachable, "not in the known hosts file"},
		"another host key": {func(c *source.Config) { c.KnownHostsFile = write(t, "known_hosts", host+" "+key, 0o644) },
			v1.ReasonSourceUnreachable, "another SSH host key"},
		"another user's key": {func(c *source.Config) { c.SSHKeyFile = other.KeyFile }, v1.ReasonSourceUnreachable, "cannot begin an SSH session"},
		"open key":           {func(c *source.Config) { c.SSHKeyFile = write(t, "key", "x", 0o644) }, v1.ReasonConfig, "chmod"},
		"no key":             {func(c *source.Config) { c.SSHKeyFile = write(t, "key", "x", 0o600) }, v1.ReasonSourceUnreachable, "cannot use the SSH key"},
		"no such repository": {func(c *source.Config) { c.URL += "-not" }, v1.ReasonSourceUnreachable,
			"does not appear to be a git repository"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.config
			tc.change(&c)
			refused(t, newSource(t, c), "", tc.reason, tc.says)
		})
	}
	poll(t, newSource(t, p.config), "", tip, want(1))
}
