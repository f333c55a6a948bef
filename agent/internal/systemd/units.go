package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Units returns the state of units by name; units that don't exist have
// LoadState "not-found". UnitState.File is left for somebody who knows where
// the file should be. MainPID and Restarts are those of a service that is not
// inactive, Result and ServiceType those of one that is not active. Looking at
// a unit makes systemd load it, but changes nothing.
func (c *Client) Units(ctx context.Context, names []string) (map[string]host.UnitState, error) {
	states := make(map[string]host.UnitState, len(names))
	if len(names) == 0 {
		return states, nil
	}
	err := c.call(ctx, "", func(ctx context.Context, conn *connection) error {
		// The list tells which exist; only those are worth calls of their own.
		list, err := conn.ListUnitsByNamesContext(ctx, names)
		if err == nil && len(list) != len(names) {
			err = fmt.Errorf("asked for %d units, got %d", len(names), len(list))
		}
		if err != nil {
			return c.refused("", "list units", err)
		}
		q := query{conn: conn.calls}
		read := make([]host.UnitState, len(names))
		for i, name := range names {
			// An alias is answered by the unit that it stands for, at the same place.
			read[i] = host.UnitState{LoadState: list[i].LoadState, ActiveState: list[i].ActiveState, SubState: list[i].SubState}
			if list[i].LoadState != "not-found" {
				q.unit(ctx, name, &read[i])
			}
		}
		if err := q.wait(ctx); err != nil {
			return c.refused("", "read the states of units", err)
		}
		for i, name := range names {
			states[name] = read[i]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return states, nil
}

// query asks for many properties without waiting for an answer before the next
// question. Single properties are cheaper than all of them: a service has
// hundreds.
type query struct {
	conn    *dbus.Conn
	asked   []*dbus.Call
	answers []func(dbus.Variant) error
}

// unit asks for what the list of units doesn't tell.
func (q *query) unit(ctx context.Context, name string, state *host.UnitState) {
	ask := func(kind, property string, out any) {
		q.ask(ctx, name, kind, property, func(v dbus.Variant) error { return v.Store(out) })
	}
	ask("Unit", "FragmentPath", &state.Fragment)
	ask("Unit", "UnitFileState", &state.UnitFileState)
	ask("Unit", "NeedDaemonReload", &state.NeedDaemonReload)
	ask("Unit", "DropInPaths", &state.DropIns)
	q.ask(ctx, name, "Unit", "InvocationID", func(v dbus.Variant) error {
		var id []byte
		err := v.Store(&id)
		state.InvocationID = hex.EncodeToString(id)
		return err
	})
	kind := interfaces[path.Ext(name)]
	if kind != "" && state.ActiveState != "active" {
		ask(kind, "Result", &state.Result)
	}
	if kind != "Service" {
		return
	}
	if state.ActiveState != "active" {
		ask(kind, "Type", &state.ServiceType)
	}
	if state.ActiveState != "inactive" {
		ask(kind, "MainPID", &state.MainPID)
		ask(kind, "NRestarts", &state.Restarts)
	}
}

// interfaces maps the kinds of unit whose runs have a result to their D-Bus
// interface.
var interfaces = map[string]string{
	".service": "Service", ".timer": "Timer", ".socket": "Socket", ".path": "Path", ".mount": "Mount",
}

func (q *query) ask(ctx context.Context, unit, kind, property string, answer func(dbus.Variant) error) {
	object := q.conn.Object("org.freedesktop.systemd1", unitPath(unit))
	// With room for its answer, which nobody may fetch when another call fails.
	call := object.GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, make(chan *dbus.Call, 1),
		"org.freedesktop.systemd1."+kind, property)
	q.asked = append(q.asked, call)
	q.answers = append(q.answers, answer)
}

func (q *query) wait(ctx context.Context) error {
	for i, call := range q.asked {
		select {
		case <-call.Done:
		case <-ctx.Done():
			return ctx.Err()
		}
		var v dbus.Variant
		if err := call.Store(&v); err != nil {
			return err
		}
		if err := q.answers[i](v); err != nil {
			return err
		}
	}
	return nil
}

func unitPath(unit string) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + sd.PathBusEscape(unit))
}

// LoadError says why a unit can't be loaded, in systemd's words; "" where it can.
func (c *Client) LoadError(ctx context.Context, name string) (string, error) {
	var words string
	err := c.call(ctx, name, func(ctx context.Context, conn *connection) error {
		props, err := conn.GetUnitPropertyContext(ctx, name, "LoadError")
		if err != nil {
			return c.refused(name, "read the state of "+name, err)
		}
		if pair, ok := props.Value.Value().([]any); ok && len(pair) == 2 {
			words, _ = pair[1].(string)
		}
		return nil
	})
	return words, err
}

// refused is an answer of the manager that says no. What says that there is no
// answer passes through, for call to judge.
func (c *Client) refused(unit, what string, err error) error {
	if err == nil || lost(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	element := ""
	if unit != "" {
		element = "unit/" + unit
	}
	return &host.Error{Component: "systemd", Element: element, Reason: v1.ReasonJobFailed, Retry: true,
		Err: fmt.Errorf("cannot %s: %s", what, words(err))}
}

// words is what a person should read of an error of D-Bus.
func words(err error) string {
	var e dbus.Error
	if errors.As(err, &e) && len(e.Body) > 0 {
		if s, ok := e.Body[0].(string); ok && s != "" {
			return s
		}
	}
	return err.Error()
}

// code is the D-Bus name of an error, such as org.freedesktop.systemd1.NoSuchUnit.
func code(err error) string {
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}
