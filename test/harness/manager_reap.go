package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// reaper waits until its standard input ends, which it does when the process
// that holds the other end is gone, and then ends a manager. Its arguments are the
// manager's process, its folder, and its cgroups.
const reaper = `
read -r _
kill -9 "$1" 2>/dev/null
dir=$2
shift 2
for _ in 1 2 3 4 5 6 7 8 9 10; do
	pids=$(find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null)
	[ -n "$pids" ] || break
	kill -9 $pids 2>/dev/null
	sleep 0.2
done
find "$@" -depth -type d -exec rmdir {} + 2>/dev/null
rm -rf "$dir"
`

// endWithCaller has the manager ended when this process ends without Stop, as
// one does that runs into a test's time limit.
func (m *Manager) endWithCaller(t testing.TB, dir string) error {
	roots, err := m.group.roots()
	if err != nil {
		return err
	}
	held, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", append([]string{"-c", reaper, "sh", fmt.Sprint(m.PID), dir}, roots...)...)
	cmd.Stdin = held
	// A signal from the terminal ends the tests, and must not end this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, held.Close(), ours.Close())
	}
	t.Cleanup(func() {
		// Before Stop: what it ends must not be looked for by number later.
		err := errors.Join(cmd.Process.Kill(), held.Close(), ours.Close())
		if err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // It was killed, and says so.
	})
	return nil
}
