package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Start starts a unit and waits until systemd calls it started, which depends
// on its type. A unit that runs already is fine.
func (c *Client) Start(ctx context.Context, unit string) error {
	return c.job(ctx, job{verb: "start", unit: unit, call: (*sd.Conn).StartUnitContext, done: host.UnitState.Active})
}

// Stop stops a unit and waits until it is stopped. A unit that doesn't run, or
// doesn't exist, is fine.
func (c *Client) Stop(ctx context.Context, unit string) error {
	return c.job(ctx, job{verb: "stop", unit: unit, call: (*sd.Conn).StopUnitContext,
		done: func(u host.UnitState) bool { return u.ActiveState == "inactive" || u.ActiveState == "failed" }})
}

// Restart stops and starts a unit, or starts it where it doesn't run. An error
// that is ErrUnreachable leaves open whether it happened; the unit's
// InvocationID tells.
func (c *Client) Restart(ctx context.Context, unit string) error {
	return c.job(ctx, job{verb: "restart", unit: unit, call: (*sd.Conn).RestartUnitContext})
}

// Reload asks a running unit to read its configuration again.
func (c *Client) Reload(ctx context.Context, unit string) error {
	return c.job(ctx, job{verb: "reload", unit: unit, call: (*sd.Conn).ReloadUnitContext})
}

// job is one order to systemd's queue.
type job struct {
	verb, unit string
	call       func(*sd.Conn, context.Context, string, string, chan<- string) (int, error)
	// done judges by the state alone whether the job is done; nil where that
	// can't be told, and for jobs that must not be ordered twice.
	done func(host.UnitState) bool
}

// job orders and waits for the answer. Where the answer gets lost, the unit's
// state decides.
func (c *Client) job(ctx context.Context, j job) error {
	conn, err := c.acquire(ctx)
	if err != nil {
		return c.unreachable("unit/"+j.unit, err)
	}
	defer c.release()
	// With room for the answer: go-systemd's dispatcher would block for ever
	// once nobody waits any more.
	answer := make(chan string, 1)
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := j.call(conn.Conn, callCtx, j.unit, "replace", answer); err != nil {
		if j.verb == "stop" && code(err) == "org.freedesktop.systemd1.NoSuchUnit" {
			return nil
		}
		return c.notOrdered(ctx, j, err)
	}
	return c.await(ctx, conn, j, answer)
}

func (c *Client) await(ctx context.Context, conn *connection, j job, answer <-chan string) error {
	limit := time.NewTimer(c.cfg.JobTimeout)
	defer limit.Stop()
	// A connection that ends takes the answer with it, without a word.
	alive := time.NewTicker(200 * time.Millisecond)
	defer alive.Stop()
	for {
		select {
		case result := <-answer:
			if result == "done" || (result == "skipped" && j.verb != "reload") {
				return nil
			}
			return c.jobFailed(ctx, j, result)
		case <-alive.C:
			if !conn.Connected() {
				return c.byState(ctx, j, errors.New("the connection ended while the job ran"))
			}
		case <-limit.C:
			return c.byState(ctx, j, fmt.Errorf("the job did not end within %s", c.cfg.JobTimeout))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// byState decides about a job whose answer is lost.
func (c *Client) byState(ctx context.Context, j job, cause error) error {
	states, err := c.Units(ctx, []string{j.unit})
	if err != nil {
		return err
	}
	state := states[j.unit]
	if j.done != nil && j.done(state) && state.ActiveState != "activating" {
		return nil
	}
	return &host.Error{Component: "systemd", Element: "unit/" + j.unit, Reason: v1.ReasonJobFailed, Retry: true,
		Err: fmt.Errorf("cannot %s %s: %w; it is %s (%s) now", j.verb, j.unit, cause, state.ActiveState, state.SubState)}
}

// notOrdered explains why systemd did not take an order.
func (c *Client) notOrdered(ctx context.Context, j job, cause error) error {
	if lost(cause) || errors.Is(cause, context.DeadlineExceeded) {
		return c.unreachable("unit/"+j.unit, cause)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	reason, advice := v1.ReasonJobFailed, ""
	switch code(cause) {
	case "org.freedesktop.systemd1.UnitMasked":
		advice = fmt.Sprintf("; somebody masked it on this node, to undo that: %s unmask %s", c.command("systemctl"), j.unit)
	case "org.freedesktop.systemd1.NoSuchUnit":
		reason, advice = v1.ReasonUnitInvalid, "; install its unit file, or take the task out of the manifest"
	case "org.freedesktop.systemd1.BadUnitSetting", "org.freedesktop.systemd1.LoadFailed":
		reason, advice = v1.ReasonUnitInvalid, fmt.Sprintf("; see: %s status %s", c.command("systemctl"), j.unit)
	case "org.freedesktop.systemd1.JobTypeNotApplicable":
		advice = "; units of this kind can't do that, or not now"
	}
	return &host.Error{Component: "systemd", Element: "unit/" + j.unit, Reason: reason,
		Err: fmt.Errorf("cannot %s %s: %s%s", j.verb, j.unit, strings.TrimSuffix(words(cause), "."), advice)}
}

// jobFailed explains a job that failed: what became of the unit, and where to
// read more.
func (c *Client) jobFailed(ctx context.Context, j job, result string) error {
	why := "the job ended as " + result
	if states, err := c.Units(ctx, []string{j.unit}); err == nil {
		state := states[j.unit]
		why += fmt.Sprintf(", the unit is %s (%s", state.ActiveState, state.SubState)
		if state.Result != "" && state.Result != "success" {
			why += ", result " + state.Result
		}
		why += ")" + c.exitStatus(ctx, j.unit, state)
	}
	return &host.Error{Component: "systemd", Element: "unit/" + j.unit, Reason: v1.ReasonJobFailed,
		Err: fmt.Errorf("cannot %s %s: %s; see: %s -u %s", j.verb, j.unit, why, c.command("journalctl"), j.unit)}
}

// exitStatus tells how the main process of a failed service ended.
func (c *Client) exitStatus(ctx context.Context, unit string, state host.UnitState) string {
	if state.Result != "exit-code" && state.Result != "signal" && state.Result != "core-dump" {
		return ""
	}
	var status int32
	err := c.call(ctx, unit, func(ctx context.Context, conn *connection) error {
		p, err := conn.GetServicePropertyContext(ctx, unit, "ExecMainStatus")
		if err != nil {
			return err
		}
		return p.Value.Store(&status)
	})
	switch {
	case err != nil || status == 0:
		return ""
	case state.Result != "exit-code":
		return fmt.Sprintf("; its main process ended by signal %d", status)
	}
	return fmt.Sprintf("; its main process ended with status %d%s", status, setupFailure[status])
}

// setupFailure explains the statuses that systemd itself uses when it can't
// prepare a process (systemd.exec(5), "Process Exit Codes").
var setupFailure = map[int32]string{
	200: " (WorkingDirectory= can't be entered)",
	203: " (the file in ExecStart= can't be run)",
	208: " (standard input can't be set up)",
	209: " (standard output can't be set up)",
	216: " (Group= or SupplementaryGroups= is wrong)",
	217: " (User= is wrong)",
	218: " (capabilities can't be set)",
	226: " (the mount name space of the unit can't be set up)",
	228: " (SystemCallFilter= can't be set)",
	238: " (StateDirectory= can't be made)",
	243: " (credentials can't be set up)",
}
