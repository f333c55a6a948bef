package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/source/gitwire"
	"github.com/gpuaas/node-agent/internal/gitpack"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// ChildCommand is the hidden command by which the binary calls RunChild.
const ChildCommand = "source-fetch"

// DefaultTimeout bounds one Poll.
const DefaultTimeout = time.Minute

// Config says what to watch.
type Config struct {
	// URL is https://, http://, ssh:// (or user@host:path), file://, or a path.
	URL string
	// Branch is its short name.
	Branch string
	// RepoDir is a folder of the source's own, made where missing.
	RepoDir string
	// Wanted are the files to hand out, by their path in the branch. The last
	// element may be a pattern of path.Match.
	Wanted []string
	// Executable is the agent's binary; "" means the one that is running.
	Executable string
	// User is who fetches over the network where the agent is root: "UID:GID", or
	// an account; "" means child.Nobody. The binary must be executable for it.
	User string
	// CAFile holds PEM certificates to trust besides the system's.
	CAFile string
	// Username and TokenFile are HTTP basic credentials; the username may be left
	// out where the server looks at the token alone. All files are read at each use.
	Username, TokenFile string
	// SSHKeyFile and KnownHostsFile are needed by ssh URLs.
	SSHKeyFile, KnownHostsFile string
	// Timeout bounds one Poll; 0 means DefaultTimeout.
	Timeout time.Duration
	// Limits are DefaultLimits where zero.
	Limits Limits
	// Version is the agent's own, told to the server.
	Version string
}

// Source watches one branch. Poll must not be called concurrently.
type Source struct {
	config Config
	remote remote

	// What HTTP polls keep from one to the next.
	server    *gitwire.Server
	transport *http.Transport
	caSeen    fileMark

	closing sync.Once
}

// Snapshot is the state of the branch at one commit: immutable, and safe for
// concurrent use. It implements trust.Files.
type Snapshot struct {
	// Commit is 40 hex digits.
	Commit string
	files  map[string][]byte
}

// NewSnapshot returns a snapshot of given files, which it keeps.
func NewSnapshot(commit string, files map[string][]byte) *Snapshot {
	return &Snapshot{Commit: commit, files: files}
}

// ReadFile returns a file by its path in the branch, and false where the branch
// doesn't have it or it wasn't wanted.
func (s *Snapshot) ReadFile(path string) ([]byte, bool) {
	data, ok := s.files[path]
	return slices.Clone(data), ok
}

// Paths returns the files that the snapshot holds, sorted.
func (s *Snapshot) Paths() []string { return slices.Sorted(maps.Keys(s.files)) }

// New checks the configuration; it doesn't reach out.
func New(c Config) (*Source, error) {
	r, err := parseRemote(c.URL)
	if err != nil {
		return nil, configError("", err)
	}
	s := &Source{config: c, remote: r}
	switch {
	case c.Branch == "":
		err = errors.New("no branch to watch: set source.branch")
	case c.RepoDir == "":
		err = errors.New("no folder for the source's state")
	case len(c.Wanted) == 0:
		err = errors.New("no files wanted of the branch")
	case r.kind == overSSH && (c.SSHKeyFile == "" || c.KnownHostsFile == ""):
		err = errors.New("an ssh URL needs source.sshKeyFile and source.knownHostsFile")
	}
	for _, name := range c.Wanted {
		if _, bad := filepath.Match(name, ""); bad != nil && err == nil {
			err = fmt.Errorf("wanted file %q: %w", name, bad)
		}
	}
	if err != nil {
		return nil, configError(r.String(), err)
	}
	if s.config.Timeout <= 0 {
		s.config.Timeout = DefaultTimeout
	}
	if s.config.User == "" {
		s.config.User = child.Nobody
	}
	s.config.Limits = s.config.Limits.orDefault()
	return s, nil
}

// Close gives up kept connections.
func (s *Source) Close() {
	s.closing.Do(func() {
		if s.transport != nil {
			s.transport.CloseIdleConnections()
		}
	})
}

// Poll looks whether the branch is at another commit than known ("" for none)
// and returns the wanted files at its commit, or nil, nil where nothing is new.
// Errors are *host.Error with ReasonSourceUnreachable, ReasonSourceEmpty,
// ReasonSourceLimits, ReasonConfig or ReasonInternal; all can be retried.
func (s *Source) Poll(ctx context.Context, known string) (*Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no answer within %s", s.config.Timeout))
	defer cancel()
	var tip gitpack.ID
	var err error
	switch s.remote.kind {
	case local:
		tip, err = localTip(s.remote.path, s.config.Branch)
	case overHTTP:
		tip, err = s.httpTip(ctx)
	case overSSH:
		// The child looks itself: a connection of its own is what costs.
	}
	if err == nil && s.remote.kind != overSSH && tip.IsZero() {
		err = errNoBranch
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if !tip.IsZero() && tip.String() == known {
		return nil, nil
	}
	snapshot, err := s.fetch(ctx, tip, known)
	if err != nil {
		// What was thought of the server may be why.
		s.server = nil
		return nil, s.failed(ctx, err)
	}
	return snapshot, nil
}

// failed gives an error the form that status needs.
func (s *Source) failed(ctx context.Context, err error) error {
	var already *host.Error
	if errors.As(err, &already) && already.Reason != v1.ReasonInternal {
		return already
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		return asHostError(s.remote, fmt.Errorf("cannot reach the signed branch: %w; check the network, the server and source.timeout", err))
	}
	var reached *child.LimitError
	if errors.As(err, &reached) {
		e := asHostError(s.remote, fmt.Errorf("cannot read the signed branch: the process that fetched it was %w; "+
			"check that source.url is your own git server, and what was pushed to it", reached))
		e.Reason = v1.ReasonSourceLimits
		return e
	}
	if already != nil {
		return already
	}
	return asHostError(s.remote, s.explain(err))
}
