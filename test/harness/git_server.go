package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gitPatience is how long requests that run may take after Stop.
const gitPatience = 30 * time.Second

// GitServerOptions of StartGitServer. All but Root may be left zero: an open
// server on a free port that speaks every protocol version that git does.
type GitServerOptions struct {
	// Root is the folder whose repositories are served.
	Root string
	// Addr is where to listen; "" means a free port of 127.0.0.1.
	Addr string
	// User and Password, if set, are demanded of every request.
	User, Password string
	// V0Only hides the client's wish for another protocol version from git.
	V0Only bool
}

// GitServer is a real "git http-backend" behind HTTP. It is safe for
// concurrent use.
type GitServer struct {
	// URL is "http://127.0.0.1:port": a repository at Root/x.git is URL/x.git.
	URL string
	// Root is the folder whose repositories are served.
	Root string

	opts    GitServerOptions
	backend *cgi.Handler
	server  *http.Server
	done    chan error
	in, out atomic.Int64
	stop    sync.Once
	err     error // of Stop

	mu       sync.Mutex
	requests []GitRequest
}

// GitRequest is one request that a GitServer answered.
type GitRequest struct {
	Method, Path, Query string
	// Protocol is the header Git-Protocol.
	Protocol string
}

// NewGitServer starts a server for one test, on a temporary folder unless the
// options name one, and stops it when the test ends.
func NewGitServer(tb testing.TB, opts GitServerOptions) *GitServer {
	tb.Helper()
	if opts.Root == "" {
		opts.Root = tb.TempDir()
	}
	s, err := StartGitServer(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// StartGitServer starts a server, which runs until Stop.
func StartGitServer(opts GitServerOptions) (*GitServer, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("cannot serve git: %w; install the package git", err)
	}
	root, err := filepath.Abs(opts.Root)
	if err != nil {
		return nil, err
	}
	addr := opts.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve git: %w", err)
	}
	s := &GitServer{
		URL:  "http://" + listener.Addr().String(),
		Root: root,
		opts: opts,
		backend: &cgi.Handler{
			Path: git,
			Args: []string{"http-backend"},
			Dir:  root,
			Env:  append(gitEnv(root), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
			// What git says of a client that went away is no test's business.
			Stderr: io.Discard,
		},
		done: make(chan error, 1),
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: gitPatience}
	go func() { s.done <- s.server.Serve(&countingListener{listener, s}) }()
	return s, nil
}

// Stop ends the server after the requests that run. Stopping twice is fine.
func (s *GitServer) Stop() error {
	s.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), gitPatience)
		defer cancel()
		s.err = s.server.Shutdown(ctx)
		if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
			s.err = errors.Join(s.err, served)
		}
	})
	return s.err
}

// ServeHTTP answers one request, so that a test can put something of its own
// before the server. Such requests count in Requests and not in WireBytes.
func (s *GitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, GitRequest{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Git-Protocol")})
	s.mu.Unlock()
	if s.opts.User != "" {
		user, password, _ := r.BasicAuth()
		if user != s.opts.User || password != s.opts.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "authentication required", http.StatusUnauthorized)
			return
		}
	}
	if s.opts.V0Only {
		r.Header.Del("Git-Protocol")
	}
	if r.ContentLength < 0 {
		release, err := settleBody(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer release()
	}
	s.backend.ServeHTTP(w, r)
}

// settleBody gives a chunked request body, which CGI knows nothing of, a length.
func settleBody(r *http.Request) (release func(), err error) {
	f, err := os.CreateTemp("", "gpuaas-git-body-")
	if err != nil {
		return nil, err
	}
	release = func() { _ = f.Close() }
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if r.ContentLength, err = io.Copy(f, r.Body); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.TransferEncoding = nil
	r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	r.Body = io.NopCloser(f)
	return release, nil
}

// Requests returns what was asked since the start or the last Reset, in order.
func (s *GitServer) Requests() []GitRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]GitRequest(nil), s.requests...)
}

// WireBytes returns how many bytes, headers and all, came in and went out since
// the start or the last Reset.
func (s *GitServer) WireBytes() (in, out int64) { return s.in.Load(), s.out.Load() }

// Reset forgets what Requests and WireBytes count.
func (s *GitServer) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	s.in.Store(0)
	s.out.Store(0)
}

type countingListener struct {
	net.Listener
	server *GitServer
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{c, l.server}, nil
}

type countingConn struct {
	net.Conn
	server *GitServer
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.server.in.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.server.out.Add(int64(n))
	return n, err
}
