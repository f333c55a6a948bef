// Package report tells others what the agent does: the status document, its
// Prometheus metrics, the audit log, and systemd. It decides nothing.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxStatus caps a status document that is read back.
const maxStatus = 16 << 20

// WriteStatus replaces the status document at path, atomically; readers need
// no lock. The folder is made if need be.
func WriteStatus(path string, status v1.NodeStatus) error {
	data, err := json.MarshalIndent(status, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode status: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the run folder: %w", err)
	}
	return durable.WriteFile(path, append(data, '\n'), durable.Options{Mode: 0o644})
}

// ReadStatus reads the status document at path.
func ReadStatus(path string) (v1.NodeStatus, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v1.NodeStatus{}, fmt.Errorf("no status at %s: the agent has not run here since the last boot (start it, or use `once`)", path)
	}
	if err != nil {
		return v1.NodeStatus{}, fmt.Errorf("cannot read status: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStatus))
	if err != nil {
		return v1.NodeStatus{}, fmt.Errorf("cannot read status: %w", err)
	}
	var s v1.NodeStatus
	if err := json.Unmarshal(data, &s); err != nil {
		return v1.NodeStatus{}, fmt.Errorf("cannot decode %s: %w", path, err)
	}
	return s, nil
}

// SetCondition sets one condition in conds, keeps the order of types, and keeps
// Since while status and reason stay as they were. It returns the new list.
func SetCondition(conds []v1.Condition, now time.Time, c v1.Condition) []v1.Condition {
	c.Since = now.UTC().Truncate(time.Second)
	i := slices.IndexFunc(conds, func(o v1.Condition) bool { return o.Type == c.Type })
	if i < 0 {
		return append(conds, c)
	}
	if conds[i].Status == c.Status && conds[i].Reason == c.Reason {
		c.Since = conds[i].Since
	}
	conds[i] = c
	return conds
}

// Condition returns the condition of that type, Unknown if it isn't there.
func Condition(s v1.NodeStatus, t v1.ConditionType) v1.Condition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c
		}
	}
	return v1.Condition{Type: t, Status: v1.Unknown, Reason: v1.ReasonPending}
}
