package systemd

import (
	"context"
	"errors"
	"fmt"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// DaemonReload makes the manager read all unit files again, and waits for it.
func (c *Client) DaemonReload(ctx context.Context) error {
	return c.call(ctx, "", func(ctx context.Context, conn *connection) error {
		return c.refused("", "make systemd read its unit files again", conn.ReloadContext(ctx))
	})
}

// Enable makes a unit start at boot by its [Install] section. It reports
// whether links were made or changed; the manager follows them only after the
// next DaemonReload.
func (c *Client) Enable(ctx context.Context, unit string) (changed bool, err error) {
	err = c.call(ctx, unit, func(ctx context.Context, conn *connection) error {
		carries, changes, err := conn.EnableUnitFilesContext(ctx, []string{unit}, false, false)
		if err != nil {
			return c.cannotEnable(unit, err)
		}
		if !carries {
			return &host.Error{Component: "systemd", Element: "unit/" + unit, Reason: v1.ReasonUnitInvalid,
				Err: fmt.Errorf("cannot enable %s: its unit file has no [Install] section; add WantedBy= there, or leave enabled out", unit)}
		}
		changed = len(changes) > 0
		return nil
	})
	return changed, err
}

func (c *Client) cannotEnable(unit string, err error) error {
	if lost(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	advice := ""
	switch code(err) {
	case "org.freedesktop.systemd1.UnitMasked":
		advice = fmt.Sprintf("; somebody masked it on this node, to undo that: %s unmask %s", c.command("systemctl"), unit)
	case "org.freedesktop.systemd1.UnitExists":
		advice = "; another unit's link is in the way, remove it"
	}
	return &host.Error{Component: "systemd", Element: "unit/" + unit, Reason: v1.ReasonJobFailed,
		Err: fmt.Errorf("cannot enable %s: %s%s", unit, words(err), advice)}
}

// Disable removes a unit from boot. It reports whether links were removed. A
// unit that isn't enabled, or doesn't exist, is fine.
func (c *Client) Disable(ctx context.Context, unit string) (changed bool, err error) {
	err = c.call(ctx, unit, func(ctx context.Context, conn *connection) error {
		changes, err := conn.DisableUnitFilesContext(ctx, []string{unit}, false)
		if code(err) == "org.freedesktop.systemd1.NoSuchUnit" || code(err) == "org.freedesktop.DBus.Error.FileNotFound" {
			return nil
		}
		changed = len(changes) > 0
		return c.refused(unit, "disable "+unit, err)
	})
	return changed, err
}

// ResetFailed clears a unit's failure and the count of its starts, which
// otherwise can keep it from being started. A unit that isn't loaded is fine.
func (c *Client) ResetFailed(ctx context.Context, unit string) error {
	return c.call(ctx, unit, func(ctx context.Context, conn *connection) error {
		err := conn.ResetFailedUnitContext(ctx, unit)
		if code(err) == "org.freedesktop.systemd1.NoSuchUnit" {
			return nil
		}
		return c.refused(unit, "reset "+unit, err)
	})
}
