package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"runtime"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/config"
	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/agent/internal/health"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/loop"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/agent/internal/source"
	"github.com/gpuaas/node-agent/agent/internal/store"
	"github.com/gpuaas/node-agent/agent/internal/systemd"
	"github.com/gpuaas/node-agent/internal/buildinfo"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxRoot caps the bootstrap root.
const maxRoot = 1 << 20

// minFree is what installing leaves free on a disk: room for the journal, status
// and audit log, so that the agent can say that the disk is full.
const minFree = 4 << 20

// executable is how the agent runs itself as a child: the running binary, even
// after another one took its place on disk.
const executable = "/proc/self/exe"

// agent is a loop with all of its real parts.
type agent struct {
	loop       *loop.Loop
	sourceName string
	closers    []func() error
}

func (a *agent) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

// newAgent builds an agent that may change the host. It holds the lock.
func newAgent(ctx context.Context, cfg config.Config, log *slog.Logger, publish func(v1.NodeStatus) error) (*agent, error) {
	j, setAside, err := journal.Open(cfg.Paths.State)
	if err != nil {
		return nil, err
	}
	a := &agent{closers: []func() error{j.Close}}
	tidy(cfg, j.Inventory, log)
	audit, err := report.OpenAudit(cfg.Paths.Audit())
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	parts := loop.Parts{Journal: j, Audit: audit, Log: log, Publish: publish, Notifier: report.NewNotifier(), Rest: rest}
	sd := a.systemd(cfg)
	if err := a.build(cfg, cfg.Paths.Repo(), sd, false, &parts); err != nil {
		return nil, errors.Join(err, a.close())
	}
	if parts.Watcher, err = newWatcher(ctx, cfg, log); err != nil {
		return nil, errors.Join(err, a.close())
	}
	if a.loop, err = loop.New(settings(cfg), parts, setAside); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// newViewer builds an agent that only looks: no lock, nothing stored, what it
// fetches goes to a temporary folder.
func newViewer(cfg config.Config, log *slog.Logger) (*agent, error) {
	j, err := journal.Peek(cfg.Paths.State)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gpuaas-node-agent-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a temporary folder: %w", err)
	}
	a := &agent{closers: []func() error{func() error { return os.RemoveAll(dir) }}}
	parts := loop.Parts{Journal: j, Log: log, Publish: func(v1.NodeStatus) error { return nil }, Notifier: report.NewNotifier()}
	if err := a.build(cfg, dir, a.systemd(cfg), true, &parts); err != nil {
		return nil, errors.Join(err, a.close())
	}
	if a.loop, err = loop.New(settings(cfg), parts, nil); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// systemdConfig is how the scope's manager is reached.
func systemdConfig(cfg config.Config) systemd.Config {
	if cfg.Scope == config.User {
		return systemd.Config{Scope: systemd.User, RuntimeDir: os.Getenv("XDG_RUNTIME_DIR")}
	}
	return systemd.Config{Scope: systemd.System}
}

func (a *agent) systemd(cfg config.Config) *systemd.Client {
	sd := systemd.New(systemdConfig(cfg))
	a.closers = append(a.closers, func() error { sd.Close(); return nil })
	return sd
}

// build makes the parts that reach outside. With readOnly they leave even what
// crashed processes left behind alone.
func (a *agent) build(cfg config.Config, repoDir string, sd *systemd.Client, readOnly bool, parts *loop.Parts) error {
	a.sourceName = withoutUserinfo(cfg.Source.URL)
	src, err := source.New(source.Config{
		URL: cfg.Source.URL, Branch: cfg.Source.Branch, RepoDir: repoDir, Wanted: trust.Wanted(cfg.Team, cfg.Node),
		Executable: executable, CAFile: cfg.Source.CAFile, Username: cfg.Source.Username, TokenFile: cfg.Source.TokenFile,
		SSHKeyFile: cfg.Source.SSHKeyFile, KnownHostsFile: cfg.Source.KnownHostsFile,
		Timeout: time.Duration(cfg.Source.Timeout), Version: buildinfo.Version(),
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, func() error { src.Close(); return nil })
	pkgs, err := newPackages(cfg, readOnly)
	if err != nil {
		return err
	}
	parts.Source, parts.Packages = src, pkgs
	parts.Observer = observe.Observer{Units: sd, Packages: pkgs.store, UnitDir: cfg.Paths.Units}
	parts.Applier = &apply.Applier{
		Systemd: sd, Packages: pkgs.store, Stager: pkgs, UnitDir: cfg.Paths.Units, FileRoots: cfg.Guard.FileRoots, Now: time.Now,
	}
	parts.Prober = &health.Prober{Units: sd, Checks: health.NewNetwork()}
	return nil
}

func newPackages(cfg config.Config, readOnly bool) (*packages, error) {
	fc := fetch.Config{
		BlobDir: cfg.Paths.Blobs(), Executable: executable, MinFree: minFree,
		AuthFile: cfg.RegistryAuthFile, AllowPrivateRedirects: cfg.AllowPrivateRedirects,
	}
	for _, r := range cfg.Registries {
		fc.Registries = append(fc.Registries, fetch.Registry{Host: r.Host, PlainHTTP: r.PlainHTTP, CAFile: r.CAFile})
	}
	f, err := fetch.New(fc)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(store.Options{Root: cfg.Paths.Packages, Executable: executable, MinFree: minFree, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	return &packages{fetch: f, store: s, platform: fetch.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}}, nil
}

func settings(cfg config.Config) loop.Settings {
	return loop.Settings{
		Node: cfg.Node, Team: cfg.Team, AgentVersion: buildinfo.Version(), BuildTime: buildinfo.Time(),
		BootstrapRoot: func() ([]byte, error) { return readRoot(cfg.Paths.BootstrapRoot()) },
		Guard:         cfg.Guard, Self: self(), UnitDir: cfg.Paths.Units,
		PollInterval: time.Duration(cfg.Poll.Interval), PollTimeout: time.Duration(cfg.Source.Timeout),
		ScanInterval: time.Duration(cfg.Poll.Scan), StaleAfter: time.Duration(cfg.Source.StaleAfter),
		Now: time.Now,
	}
}

// readRoot reads the bootstrap root anew each time, so that one that is put
// there later is found without a restart.
func readRoot(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRoot+1))
	if err == nil && len(data) > maxRoot {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxRoot)
	}
	return data, err
}

// self is whose files the agent's are.
func self() plan.Identity {
	id := plan.Identity{Owner: fmt.Sprint(os.Geteuid()), Group: fmt.Sprint(os.Getegid())}
	if u, err := user.LookupId(id.Owner); err == nil {
		id.Owner = u.Username
	}
	if g, err := user.LookupGroupId(id.Group); err == nil {
		id.Group = g.Name
	}
	return id
}

// withoutUserinfo is the URL for logs.
func withoutUserinfo(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return raw
	}
	u.User = nil
	return u.String()
}
