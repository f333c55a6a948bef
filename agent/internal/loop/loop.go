package loop

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/guard"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/agent/internal/source"
	"github.com/gpuaas/node-agent/schema/task"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Source answers whether the signed branch moved.
type Source interface {
	// Poll returns nil when the branch still is at known, else what is there
	// now. Errors are host.Errors; all may be tried again.
	Poll(ctx context.Context, known string) (*source.Snapshot, error)
}

// Packages stages, reads and collects packages.
type Packages interface {
	// Stage fetches, verifies and unpacks; done already is success.
	Stage(ctx context.Context, p task.Package) error
	// ReadFile returns a file of a staged package.
	ReadFile(name, digest, file string) ([]byte, error)
	// Collect removes every version but those to keep, by package name, and
	// downloads that nothing needs any more.
	Collect(keep map[string][]string) error
}

// Observer looks at the host.
type Observer interface {
	Observe(ctx context.Context, resources []task.Resource, inv host.Inventory) (host.Observed, error)
}

// Applier runs steps. It updates inv, through save, before and after each.
type Applier interface {
	Run(ctx context.Context, steps []host.Step, inv *host.Inventory, save func(host.Inventory) error, record func(apply.Record)) error
}

// Prober watches services after a change.
type Prober interface {
	// Probe returns nil when all services were healthy for as long as they ask.
	Probe(ctx context.Context, services []task.Service) error
}

// Watcher wakes the loop when something on the host may have changed.
type Watcher interface {
	// Watch replaces what is watched: files by path, units and packages by name.
	Watch(files, units, packages []string)
	// Changes delivers a word for the log; a value may stand for many changes.
	Changes() <-chan string
}

// Notifier tells the service manager.
type Notifier interface {
	Ready()
	Status(text string)
	// Working is called when a piece of work begins, Waiting when there is none.
	Working()
	Waiting()
	Stopping()
}

// Parts are what the loop drives. All are required.
type Parts struct {
	Source   Source
	Packages Packages
	Observer Observer
	Applier  Applier
	Prober   Prober
	Watcher  Watcher
	Notifier Notifier
	Journal  *journal.Journal
	Audit    *report.Audit
	Log      *slog.Logger
	// Publish makes a status document visible.
	Publish func(v1.NodeStatus) error
	// Rest lets go of memory that a pass needed and waiting doesn't.
	Rest func()
}

// Settings are the loop's plain parameters.
type Settings struct {
	Node, Team    string
	AgentVersion  string
	BuildTime     time.Time
	BootstrapRoot func() ([]byte, error)
	Guard         guard.Guard
	// Self is who the agent runs as; UnitDir is where it writes unit files.
	Self         plan.Identity
	UnitDir      string
	PollInterval time.Duration
	PollTimeout  time.Duration
	ScanInterval time.Duration
	StaleAfter   time.Duration
	Now          func() time.Time
}

// Loop is the agent. Its methods must be called from one goroutine.
type Loop struct {
	Settings
	Parts
	phase  Phase
	status v1.NodeStatus
	stored trust.State
	// verified is what the newest verification returned; nil before the first.
	verified *trust.Verified
	// seen is the commit that was last judged, good or bad: it isn't fetched again.
	seen         string
	pollFailures int
	// retryAt is when a manifest that failed may be tried again.
	retryAt time.Time
	damper  damper
	// worked is true when something more than a poll without news was done since
	// the last rest.
	worked bool
	// written is the status document as it was last published.
	written v1.NodeStatus
	// unproven is the digest of a manifest whose services were touched and not seen
	// healthy since: a probation failed, or a crash cut it short. Which were touched
	// is not known any more, so all of them are watched once.
	unproven string
	// working is the manifest that is being applied, for the audit log.
	working journal.Manifest
	// refusal is the last one that the audit log was told of.
	refusal string
	// contactSaved is the last contact that is durable.
	contactSaved time.Time
}

// New returns a loop over an open journal. It restores and re-verifies what was
// last trusted; setAside names state files that were corrupt.
func New(s Settings, p Parts, setAside []string) (*Loop, error) {
	l := &Loop{Settings: s, Parts: p, phase: Idle, contactSaved: p.Journal.State.LastContact}
	l.status = newStatus(s)
	if l.owes() {
		l.unproven = p.Journal.State.Target.Digest
	}
	for _, name := range setAside {
		l.Log.Error("state was corrupt and is set aside", "file", name)
	}
	if err := l.restoreTrust(); err != nil {
		return nil, err
	}
	return l, nil
}

// Run works until ctx ends. wake triggers a poll and a full look at once (SIGHUP).
// It returns nil when ctx ended.
func (l *Loop) Run(ctx context.Context, wake <-chan struct{}) error {
	defer l.Notifier.Stopping()
	// Before any work: a large download or a long probation would otherwise
	// outlast systemd's patience with a start.
	l.Notifier.Ready()
	l.Notifier.Status(string(l.phase))
	// What was verified before is enforced before the network is asked: a node
	// that boots while the git server is down still gets its services.
	l.converge(ctx, "start")
	poll, scan := time.NewTimer(0), time.NewTimer(l.ScanInterval)
	damped, retry := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	damped.Stop()
	retry.Stop()
	var warned time.Time
	defer func() {
		for _, t := range []*time.Timer{poll, scan, damped, retry} {
			t.Stop()
		}
	}()
	for {
		l.Notifier.Waiting()
		if l.worked && l.Rest != nil {
			l.worked = false
			l.Rest()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			l.Log.Info("woken", "by", "signal")
			l.retryAt = time.Time{}
			l.pollAndConverge(ctx, "signal")
			poll.Reset(l.nextPoll())
		case <-poll.C:
			l.pollAndConverge(ctx, "poll")
			poll.Reset(l.nextPoll())
		case <-scan.C:
			l.converge(ctx, "scan")
			scan.Reset(jitter(l.ScanInterval))
		case what := <-l.Watcher.Changes():
			now := l.Now()
			if until := l.damper.until(now); until.After(now) {
				if warned != until {
					l.Log.Warn("this host needed repair again and again: waiting before the next one", "changed", what, "until", until.UTC())
					warned = until
				}
				damped.Reset(until.Sub(now))
				continue
			}
			l.converge(ctx, "changed: "+what)
		case <-damped.C:
			l.converge(ctx, "damped drift")
		case <-retry.C:
			l.converge(ctx, "retry")
		}
		if !l.retryAt.IsZero() {
			retry.Reset(max(l.retryAt.Sub(l.Now()), time.Second))
		}
	}
}

// Once polls and reconciles once and returns the status. What went wrong is in
// its LastError.
func (l *Loop) Once(ctx context.Context) v1.NodeStatus {
	l.pollAndConverge(ctx, "once")
	return l.status
}

func (l *Loop) pollAndConverge(ctx context.Context, cause string) {
	moved := l.poll(ctx)
	// Nothing new and nothing owed: the events and the scan watch the host.
	if moved || cause != "poll" || l.owes() {
		l.converge(ctx, cause)
		return
	}
	l.publish()
}

// owes reports whether the newest manifest is neither reached nor held.
func (l *Loop) owes() bool {
	s := l.Journal.State
	return s.Target != nil && s.Hold == nil && (s.LastGood == nil || *s.LastGood != *s.Target)
}

func (l *Loop) nextPoll() time.Duration {
	return jitter(max(l.PollInterval, min(l.PollInterval<<min(l.pollFailures, 6), 10*time.Minute)))
}

// jitter spreads d by a tenth up and down, so that nodes that started together
// don't ask together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// to moves the phase machine.
func (l *Loop) to(p Phase) {
	next, err := l.phase.next(p)
	if err != nil {
		l.Log.Error("phase machine", "error", err)
		return
	}
	if next == l.phase {
		return
	}
	l.Log.Debug("phase", "from", l.phase, "to", next)
	l.phase = next
	l.Notifier.Status(string(next))
}
