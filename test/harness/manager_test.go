package harness_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/test/harness"
)

// Two managers at once with a unit of the same name: each sees its own process
// only, and ending one leaves the other alone.
func TestManagersAreApart(t *testing.T) {
	one, two := harness.NewManager(t), harness.NewManager(t)
	pids := map[*harness.Manager]int{}
	for _, m := range []*harness.Manager{one, two} {
		writeUnit(t, m, "gpuaas-sleep.service", "[Service]\nExecStart=/bin/sleep 1000\nRestart=always\n")
		systemctl(t, m, "start", "gpuaas-sleep.service")
		pids[m] = mainPID(t, m, "gpuaas-sleep.service")
	}
	if err := one.Stop(); err != nil {
		t.Fatal(err)
	}
	if alive(pids[one]) || alive(one.PID) {
		t.Error("the first manager or its service is still alive after Stop")
	}
	if got := mainPID(t, two, "gpuaas-sleep.service"); got != pids[two] || !alive(got) {
		t.Errorf("the second manager's service has process %d, want %d, alive", got, pids[two])
	}
}

func TestManagerLeavesNothing(t *testing.T) {
	dir, err := os.MkdirTemp("", "gpuaas-manager-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	mounts, group := read(t, "/proc/self/mountinfo"), read(t, "/proc/self/cgroup")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := harness.StartManager(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	cgroups := read(t, "/proc/"+strconv.Itoa(m.PID)+"/cgroup")
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	if now := read(t, "/proc/self/mountinfo"); now != mounts {
		t.Errorf("mounts are different now:\n%s", now)
	}
	if now := read(t, "/proc/self/cgroup"); now != group {
		t.Errorf("this process was moved to another cgroup:\n%s", now)
	}
	for line := range strings.Lines(cgroups) {
		place := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:])
		if !strings.Contains(place, "gpuaas-manager-") {
			continue // The manager joined the hierarchies that it uses, no other.
		}
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"} {
			if _, err := os.Stat(filepath.Join(root, place)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the cgroup %s is still there: %v", filepath.Join(root, place), err)
			}
		}
	}
}

func TestManagerInLongFolderIsRefused(t *testing.T) {
	_, err := harness.StartManager(t.Context(), filepath.Join(t.TempDir(), strings.Repeat("x", 90)))
	if err == nil || !strings.Contains(err.Error(), "use a shorter folder") {
		t.Errorf("got %v", err)
	}
}

func writeUnit(t *testing.T, m *harness.Manager, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.UnitDir(), name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func systemctl(t *testing.T, m *harness.Manager, args ...string) string {
	t.Helper()
	out, err := m.Systemctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mainPID(t *testing.T, m *harness.Manager, unit string) int {
	t.Helper()
	pid, err := strconv.Atoi(systemctl(t, m, "show", "--property=MainPID", "--value", unit))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// alive reports whether a process runs; one that ended and that nobody reaped
// yet doesn't.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
