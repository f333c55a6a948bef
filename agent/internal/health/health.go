// Package health watches services after a change until they have proven good:
// probation.
//
// In: services with their Health. Out: nil, or a *host.Error with reason
// Unhealthy that says what was seen last. It looks at units again and again,
// through Units, and asks what the manifest names over HTTP and TCP; it changes
// nothing.
//
// A service is good once it was so without a break for StableFor: its unit is
// as it should be (see unitGood), was not started anew meanwhile, and its checks
// passed. One that can't become good any more fails before Timeout.
package health

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Units tells the states of units.
type Units interface {
	Units(ctx context.Context, names []string) (map[string]host.UnitState, error)
}

// Checks are the questions to services themselves. Each is bounded by ctx.
type Checks interface {
	// HTTP is nil when a GET of url is answered with 2xx.
	HTTP(ctx context.Context, url string) error
	// TCP is nil when address accepts a connection.
	TCP(ctx context.Context, address string) error
}

// Defaults for services without Health. A program that can't be run is seen
// within the time.
const (
	DefaultStableFor = 500 * time.Millisecond
	DefaultTimeout   = 30 * time.Second
)

const (
	// lookEvery is the time between two looks at units.
	lookEvery = 100 * time.Millisecond
	// checkEvery is the time between two rounds of checks that pass; one that
	// failed is tried again with the next look.
	checkEvery = time.Second
	// checkTimeout bounds one check.
	checkTimeout = 2 * time.Second
)

// Prober watches services. It is safe for concurrent use.
type Prober struct {
	Units  Units
	Checks Checks
}

// Probe returns when all services are good, at the first that can't become so, or
// with ctx's error when ctx ends.
func (p *Prober) Probe(ctx context.Context, services []task.Service) error {
	var open []*probation
	for _, s := range services {
		if s.Action == "" {
			open = append(open, newProbation(s, time.Now()))
		}
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for len(open) > 0 {
		if err := p.round(ctx, open); err != nil {
			return err
		}
		open = slices.DeleteFunc(open, func(b *probation) bool { return b.passed })
		if len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// round looks once at every service that has not passed yet.
func (p *Prober) round(ctx context.Context, open []*probation) error {
	var names []string
	for _, b := range open {
		names = append(names, b.service.Unit)
	}
	states, err := p.Units.Units(ctx, names)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		// The manager itself may restart during a probation; timeouts go on.
		for _, b := range open {
			b.broken(fmt.Sprintf("its state is not known: %v", err))
		}
	} else {
		for _, b := range open {
			b.unit(states[b.service.Unit])
		}
		p.checks(ctx, open)
	}
	now := time.Now()
	for _, b := range open {
		if err := b.judge(now); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// checks asks all services that are up and due, at the same time.
func (p *Prober) checks(ctx context.Context, open []*probation) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type answer struct {
		b   *probation
		err error
	}
	answers := make(chan answer)
	asked := 0
	for _, b := range open {
		if !b.due(time.Now()) {
			continue
		}
		asked++
		go func() { answers <- answer{b, p.check(ctx, b.service.Health)} }()
	}
	for range asked {
		a := <-answers
		a.b.checked(time.Now(), a.err)
	}
}

func (p *Prober) check(ctx context.Context, h *task.Health) error {
	var errs []error
	if h.HTTPURL != "" {
		errs = append(errs, p.Checks.HTTP(ctx, h.HTTPURL))
	}
	if h.TCPAddress != "" {
		errs = append(errs, p.Checks.TCP(ctx, h.TCPAddress))
	}
	return errors.Join(errs...)
}

// probation is the one of one service.
type probation struct {
	service  task.Service
	stable   time.Duration
	deadline time.Time
	hasCheck bool

	passed bool
	// up is whether unit and checks were good in this round.
	up bool
	// since is when the present good spell began; zero where there is none.
	since time.Time
	// invocation and restarts are the unit's in this spell.
	invocation string
	restarts   uint32
	// answered is when the checks last passed.
	answered time.Time
	seen     string // what was seen last, in words
	lost     bool   // it can't become good any more
}

func newProbation(s task.Service, now time.Time) *probation {
	h := s.Health
	if h == nil {
		return &probation{service: s, stable: DefaultStableFor, deadline: now.Add(DefaultTimeout)}
	}
	return &probation{service: s, stable: h.StableFor, deadline: now.Add(h.Timeout), hasCheck: h.HTTPURL != "" || h.TCPAddress != ""}
}

// broken ends a good spell.
func (b *probation) broken(seen string) {
	b.up, b.since, b.answered, b.seen = false, time.Time{}, time.Time{}, seen
}

// unit takes a look at the unit into account.
func (b *probation) unit(u host.UnitState) {
	good, final, words := unitGood(b.service, u)
	b.lost = final
	if !good {
		b.broken("it is " + words)
		return
	}
	if !b.since.IsZero() && (u.InvocationID != b.invocation || u.Restarts != b.restarts) {
		b.broken(fmt.Sprintf("it was started anew, by itself or by somebody (%d automatic restarts)", u.Restarts))
	}
	b.invocation, b.restarts, b.up = u.InvocationID, u.Restarts, true
	if b.since.IsZero() && !b.hasCheck {
		b.since = time.Now()
	}
	if b.seen == "" {
		// Later only what was wrong is of interest.
		b.seen = "it is " + words
	}
}

// due reports whether it is time to ask the service itself.
func (b *probation) due(now time.Time) bool {
	return b.hasCheck && b.up && (b.since.IsZero() || now.Sub(b.answered) >= checkEvery || now.Sub(b.since) >= b.stable)
}

func (b *probation) checked(now time.Time, err error) {
	if err != nil {
		b.broken(strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	b.answered = now
	if b.since.IsZero() {
		b.since = now
	}
}

// judge says how the probation stands at the end of a round.
func (b *probation) judge(now time.Time) error {
	switch {
	case b.up && !b.since.IsZero() && now.Sub(b.since) >= b.stable:
		b.passed = true
		return nil
	case b.lost:
		return b.unhealthy("will not become healthy")
	case !now.Before(b.deadline):
		wanted := "did not become healthy in time"
		if b.stable > 0 {
			wanted = fmt.Sprintf("was not healthy for %s without a break in time", b.stable)
		}
		return b.unhealthy(wanted)
	}
	return nil
}

func (b *probation) unhealthy(what string) error {
	return &host.Error{Component: "health", Element: b.service.Ref(), Reason: v1.ReasonUnhealthy,
		Err: fmt.Errorf("%s %s: %s", b.service.Unit, what, b.seen)}
}

// unitGood says whether a unit is as its service wants it, whether that is final,
// and what it is, in words. Units other than services are up while they are
// active: a timer that waits, a socket that listens, a target that is reached.
// A oneshot service did its work when it ended well.
func unitGood(s task.Service, u host.UnitState) (good, final bool, words string) {
	words = fmt.Sprintf("%s (%s)", u.ActiveState, u.SubState)
	if u.Result != "" && u.Result != "success" {
		words += ", result " + u.Result
	}
	if u.LoadState != "loaded" {
		return false, u.LoadState != "", "not there to be run: systemd says " + u.LoadState
	}
	if s.State == task.Stopped {
		return u.ActiveState == "inactive" || u.ActiveState == "failed", false, words
	}
	switch u.ActiveState {
	case "active", "reloading":
		return true, false, words
	case "failed":
		// systemd has given up; a unit that it starts again is "activating".
		return false, true, words
	case "inactive":
		oneshot := path.Ext(s.Unit) == ".service" && u.ServiceType == "oneshot"
		return oneshot && u.Result == "success", false, words
	}
	return false, false, words
}
