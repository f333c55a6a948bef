package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/source/gitwire"
	"github.com/gpuaas/node-agent/internal/gitpack"
)

// request is all that the child is told. Secrets travel in it, on a pipe, and
// so the child needs no file of the agent's.
type request struct {
	URL    string `json:"url"`
	Branch string `json:"branch"`
	// Tip is the commit to fetch, "" for the branch's.
	Tip string `json:"tip,omitempty"`
	// Known is the commit that needn't be fetched, "" for none.
	Known   string          `json:"known,omitempty"`
	Wanted  []string        `json:"wanted"`
	Cache   []byte          `json:"cache,omitempty"`
	Server  *gitwire.Server `json:"server,omitempty"`
	Limits  Limits          `json:"limits"`
	Version string          `json:"version,omitempty"`

	Authorization string `json:"authorization,omitempty"`
	CA            []byte `json:"ca,omitempty"`
	SSHKey        []byte `json:"sshKey,omitempty"`
	KnownHosts    []byte `json:"knownHosts,omitempty"`
}

// result is what comes back.
type result struct {
	// Unchanged is true when the branch is at request.Known; then the rest is empty.
	Unchanged bool              `json:"unchanged,omitempty"`
	Commit    string            `json:"commit,omitempty"`
	Files     map[string][]byte `json:"files,omitempty"`
	// Cache is for the next request.
	Cache []byte `json:"cache,omitempty"`
}

const (
	// childMemory makes the child collect garbage rather than grow.
	childMemory = 24 << 20
	// childGC is how much garbage is let lie, in percent of what is in use.
	childGC = 100
	// childMaxMemory is where it ends, docs/adr/child-limits.md says why there.
	childMaxMemory = 192 << 20
	childMaxCPU    = 2 * time.Minute
	childOpenFiles = 64
	// spoolDescriptor is the child's only file, for packs too big for memory.
	spoolDescriptor = 3
	// spoolSlack is for what is written before a limit on packs is noticed.
	spoolSlack = 1 << 20
)

// fetch runs the child for one commit, the branch's own where tip is zero.
func (s *Source) fetch(ctx context.Context, tip gitpack.ID, known string) (*Snapshot, error) {
	q, err := s.request(tip, known)
	if err != nil {
		return nil, err
	}
	spool, err := gitpack.NamelessFile(s.config.RepoDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWorkspace, err)
	}
	defer func() { _ = spool.Close() }()
	var r result
	err = child.Run(ctx, child.Command{
		Executable: s.config.Executable, Name: ChildCommand, Component: component,
		Stdin: q, MaxOutput: 2*s.config.Limits.Total + 2*maxCache,
		Limits: s.childLimits(), User: s.childUser(), Files: []*os.File{spool},
	}, &r)
	if err != nil {
		return nil, err
	}
	if r.Unchanged {
		return nil, nil
	}
	if err := s.saveCache(r.Cache); err != nil {
		return nil, err
	}
	return NewSnapshot(r.Commit, r.Files), nil
}

// childLimits are what a child needs at most, and much more than it usually does.
func (s *Source) childLimits() child.Limits {
	return child.Limits{
		Memory: childMaxMemory + 4*(s.config.Limits.Total-DefaultLimits().Total),
		// A child never lives longer than a Poll may take.
		CPUTime: childMaxCPU, FileSize: s.config.Limits.Wire + spoolSlack, OpenFiles: childOpenFiles,
	}
}

// childUser is who the child runs as. A repository on this machine is read with
// the agent's own rights: it may be open to no other.
func (s *Source) childUser() string {
	if s.remote.kind == local {
		return ""
	}
	return s.config.User
}

// openSpool returns the file that the agent gave, emptied. One pack uses it at a time.
func openSpool() (*os.File, error) {
	fd, err := unix.FcntlInt(spoolDescriptor, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "spool")
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *Source) request(tip gitpack.ID, known string) (request, error) {
	q := request{
		URL: s.remote.String(), Branch: s.config.Branch, Known: known, Wanted: s.config.Wanted,
		Server: s.server, Limits: s.config.Limits, Version: s.config.Version,
	}
	if !tip.IsZero() {
		q.Tip = tip.String()
	}
	var err error
	if q.Cache, err = s.loadCache(); err != nil {
		return q, err
	}
	switch s.remote.kind {
	case overHTTP:
		if q.Authorization, err = s.authorization(); err == nil {
			q.CA, err = s.ca()
		}
	case overSSH:
		q.URL = s.config.URL
		if q.SSHKey, err = readSecret(s.config.SSHKeyFile); err == nil {
			q.KnownHosts, err = readFile(s.config.KnownHostsFile, maxBundle)
		}
	}
	return q, err
}

// RunChild is the hidden command's work: it reads one request from stdin,
// fetches, and writes the answer to stdout. It is for Source only.
func RunChild(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	debug.SetMemoryLimit(childMemory)
	debug.SetGCPercent(childGC)
	return child.Serve(ctx, stdin, stdout, func(ctx context.Context, q request) (result, error) {
		r, err := parseRemote(q.URL)
		if err != nil {
			return result{}, configError("", err)
		}
		answer, err := answerRequest(ctx, r, q)
		if err != nil {
			return result{}, asHostError(r, explain(err, q.Branch))
		}
		return answer, nil
	})
}

func answerRequest(ctx context.Context, r remote, q request) (result, error) {
	if r.kind == local {
		return fetchLocal(r.path, q)
	}
	transport, done, err := dial(ctx, r, q)
	if err != nil {
		return result{}, err
	}
	defer done()
	client := gitwire.New(transport, q.Server, agentName(q.Version))
	tip, err := wantedTip(ctx, client, q)
	if err != nil {
		return result{}, err
	}
	if tip.String() == q.Known {
		return result{Unchanged: true}, nil
	}
	f := &fetcher{client: client, wanted: q.Wanted, limits: q.Limits, open: openSpool, wire: q.Limits.Wire}
	f.objects, f.kept = decodeCache(q.Cache, openSpool, q.Limits)
	w, err := f.fetch(ctx, tip)
	if err != nil {
		return result{}, err
	}
	return w.result(tip)
}

// dial returns the transport for a remote.
func dial(ctx context.Context, r remote, q request) (gitwire.Transport, func(), error) {
	if r.kind == overSSH {
		user := r.user
		if user == "" {
			user = defaultUser
		}
		t, err := gitwire.DialSSH(ctx, gitwire.SSHConfig{
			Host: r.host, Port: r.port, User: user, Path: r.path, Key: q.SSHKey, KnownHosts: q.KnownHosts,
		})
		if err != nil {
			return nil, nil, err
		}
		return t, func() { _ = t.Close() }, nil
	}
	roundTripper, err := newTransport(q.CA)
	if err != nil {
		return nil, nil, err
	}
	t := &gitwire.HTTP{Base: r.base, RoundTripper: roundTripper, Authorization: q.Authorization, UserAgent: agentName(q.Version)}
	return t, roundTripper.CloseIdleConnections, nil
}

// wantedTip returns the commit to fetch. In version 2 that is the one that the
// agent saw; version 0 can only fetch what the branch is at now.
func wantedTip(ctx context.Context, client *gitwire.Client, q request) (gitpack.ID, error) {
	if q.Tip != "" && q.Server != nil && q.Server.Version == 2 {
		return gitpack.ParseID(q.Tip)
	}
	tip, err := client.Tip(ctx, refName(q.Branch))
	if err == nil && tip.IsZero() {
		err = errNoBranch
	}
	return tip, err
}

// result is the answer of a walk that misses nothing.
func (w *walk) result(tip gitpack.ID) (result, error) {
	if len(w.files) == 0 {
		return result{}, errNoFiles
	}
	files, err := w.contents()
	if err != nil {
		return result{}, err
	}
	cache, err := encodeCache(w)
	if err != nil {
		return result{}, fmt.Errorf("cannot keep what was fetched: %w", err)
	}
	return result{Commit: tip.String(), Files: files, Cache: cache}, nil
}
