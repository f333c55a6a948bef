package systemd

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	explainTimeout = 10 * time.Second
	// explainLines is how many of systemd's complaints a message holds.
	explainLines = 4
)

// Explain says why systemd can't load a unit with this content, in words for
// whoever wrote it. The manager itself tells hardly more than "bad"; where
// systemd-analyze is installed it is asked for the line.
func (c *Client) Explain(ctx context.Context, unit string, content []byte) string {
	reasons := c.verify(ctx, unit, content)
	if words, err := c.LoadError(ctx, unit); err == nil && words != "" && len(reasons) == 0 {
		reasons = []string{words}
	}
	return strings.Join(reasons, "; ")
}

// verify has systemd-analyze read a copy of the unit, and returns what it
// complains about. It is help for people only, so whatever goes wrong here is
// no answer.
func (c *Client) verify(ctx context.Context, unit string, content []byte) []string {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil
	}
	dir, err := os.MkdirTemp("", "gpuaas-verify-")
	if err != nil {
		return nil
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, unit)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	args := []string{"verify", "--man=no", "--recursive-errors=no", path}
	if c.cfg.Scope == User {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C", "HOME=" + dir, "XDG_RUNTIME_DIR=" + c.cfg.RuntimeDir}
	var output limited
	cmd.Stderr = &output
	// A unit that can't be loaded makes it exit with 1; all that counts is what it says.
	_ = cmd.Run()
	return complaints(output.String(), dir, unit)
}

// complaints picks what is about the unit itself.
func complaints(output, dir, unit string) []string {
	var found []string
	for line := range strings.Lines(output) {
		line = strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(line, dir+"/", "")), ".")
		switch {
		case !strings.HasPrefix(line, unit+":"):
		case strings.Contains(line, "is not executable"):
			// The package may not be active yet.
		case len(found) < explainLines:
			found = append(found, line)
		}
	}
	return found
}

// limited is a buffer that forgets what doesn't fit.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 16 << 10
	if room := most - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
