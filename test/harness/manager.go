package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Manager is a running systemd user manager: a private one that StartManager
// made, or the user's own that UserManager found. A client reaches it through
// RuntimeDir/systemd/private and needs nothing but the variables of Env.
type Manager struct {
	// The folders that XDG_RUNTIME_DIR, XDG_CONFIG_HOME, XDG_DATA_HOME,
	// XDG_STATE_HOME and XDG_CACHE_HOME name.
	RuntimeDir, ConfigDir, DataDir, StateDir, CacheDir string
	// PID is that of the manager; 0 for the user's own.
	PID int

	cmd    *exec.Cmd
	exited chan struct{} // closed when a private manager ended and was reaped
	group  cgroup
	remove []string // what Stop removes from the disk
	stop   sync.Once
	err    error // of Stop
}

// UnitDir is where units of this manager are written: $XDG_CONFIG_HOME/systemd/user.
func (m *Manager) UnitDir() string { return filepath.Join(m.ConfigDir, "systemd", "user") }

// Private reports whether StartManager made this manager.
func (m *Manager) Private() bool { return m.PID != 0 }

// Env returns the variables, "NAME=value", that make a child process use this
// manager and its folders. Append them to os.Environ().
func (m *Manager) Env() []string {
	return []string{
		"XDG_RUNTIME_DIR=" + m.RuntimeDir,
		"XDG_CONFIG_HOME=" + m.ConfigDir,
		"XDG_DATA_HOME=" + m.DataDir,
		"XDG_STATE_HOME=" + m.StateDir,
		"XDG_CACHE_HOME=" + m.CacheDir,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(m.RuntimeDir, "bus"),
	}
}

// Systemctl runs "systemctl --user args..." against this manager and returns
// what it printed, without the last newline. Where systemctl exits with
// another status than 0 the output is returned beside the error, because some
// verbs (is-active) answer that way.
func (m *Manager) Systemctl(args ...string) (string, error) {
	cmd := exec.Command("systemctl", append([]string{"--user", "--no-pager", "--no-ask-password"}, args...)...)
	if _, err := os.Stat("/run/systemd/system"); err != nil && m.Private() {
		// Where nothing looks booted by systemd, systemctl changes links by itself
		// and doesn't tell the manager. In the manager's namespace it looks booted.
		cmd = exec.Command("nsenter", append(m.enter(), cmd.Args...)...)
	}
	cmd.Env = append(os.Environ(), m.Env()...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := strings.TrimSuffix(stdout.String(), "\n")
	if err != nil {
		return out, fmt.Errorf("systemctl --user %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// enter returns the arguments with which nsenter joins the manager's namespaces.
func (m *Manager) enter() []string {
	args := []string{"--target", strconv.Itoa(m.PID), "--mount"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--preserve-credentials")
	}
	return append(args, "--")
}

// UserManager finds the systemd user manager of whoever calls. The error says
// why there is none.
func UserManager() (*Manager, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("cannot find the user's folders: %w", err)
	}
	m := &Manager{
		RuntimeDir: envOr("XDG_RUNTIME_DIR", fmt.Sprintf("/run/user/%d", os.Getuid())),
		ConfigDir:  envOr("XDG_CONFIG_HOME", filepath.Join(home, ".config")),
		DataDir:    envOr("XDG_DATA_HOME", filepath.Join(home, ".local", "share")),
		StateDir:   envOr("XDG_STATE_HOME", filepath.Join(home, ".local", "state")),
		CacheDir:   envOr("XDG_CACHE_HOME", filepath.Join(home, ".cache")),
	}
	if err := m.dial(); err != nil {
		return nil, fmt.Errorf("no systemd user manager runs for this user: %w", err)
	}
	if _, err := m.Systemctl("show", "--property=Version"); err != nil {
		return nil, err
	}
	return m, nil
}

// StartManager starts a private systemd user manager that keeps everything
// below dir, which it creates where missing. dir must be short: the manager's
// socket has at most 107 characters. The manager outlives the caller and ctx,
// which only bounds the start; end it with Stop.
//
// It needs systemd's package, and a cgroup that it may write: root has one,
// and so has a user with a user manager. Where the machine wasn't booted with
// systemd it needs a mount namespace too: root, or unprivileged user
// namespaces.
func StartManager(ctx context.Context, dir string) (*Manager, error) {
	binary, err := findSystemd()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		RuntimeDir: filepath.Join(dir, "run"), ConfigDir: filepath.Join(dir, "config"), DataDir: filepath.Join(dir, "data"),
		StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache"),
		exited: make(chan struct{}),
	}
	if n := len(m.socket()); n > 107 {
		return nil, fmt.Errorf("cannot start a systemd manager in %s: the path of its socket would have %d characters, 107 are possible; use a shorter folder", dir, n)
	}
	home, library := filepath.Join(dir, "home"), filepath.Join(dir, "lib")
	for _, d := range []string{m.RuntimeDir, m.UnitDir(), m.DataDir, m.StateDir, m.CacheDir, home, library} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("cannot create a folder for the systemd manager: %w", err)
		}
	}
	m.remove = []string{m.RuntimeDir, m.ConfigDir, m.DataDir, m.StateDir, m.CacheDir, home, library}
	if err := copyStandardUnits(filepath.Dir(binary), library); err != nil {
		return nil, errors.Join(err, m.removeFiles())
	}
	env := append(m.Env(),
		"HOME="+home, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		// Only the targets and slices that every manager needs: sockets and
		// services that this machine's packages add must not come to life.
		"SYSTEMD_UNIT_PATH="+m.unitPath(library),
		"SYSTEMD_GENERATOR_PATH=", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=",
	)
	m.cmd, m.group, err = managerCommand(binary, env)
	if err != nil {
		return nil, errors.Join(err, m.removeFiles())
	}
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start a systemd manager: %w", err), m.group.remove(), m.removeFiles())
	}
	m.PID = m.cmd.Process.Pid
	go func() {
		defer close(m.exited)
		// Its exit status says nothing that matters: Stop kills what doesn't end.
		_ = m.cmd.Wait()
	}()
	if err := m.waitUntilUp(ctx); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	if m.group.name == "" {
		if m.group.scope, err = scopeOf(m.PID); err != nil {
			return nil, errors.Join(err, m.Stop())
		}
	}
	return m, nil
}

// NewManager starts a private manager for a test, and stops it when the test
// ends, or when the test's process is killed. A manager that can't start fails
// the test.
func NewManager(t testing.TB) *Manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpuaas-manager-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := StartManager(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := m.endWithCaller(t, dir); err != nil {
		t.Fatal(err)
	}
	return m
}

// Stop ends a private manager, every process of its units, and removes its
// cgroup and its folders. For the user's own manager it does nothing.
func (m *Manager) Stop() error {
	if !m.Private() {
		return nil
	}
	m.stop.Do(func() { m.err = errors.Join(m.Kill(), m.removeFiles()) })
	return m.err
}

// Kill ends a private manager and its units at once, as a crash would, and
// leaves its folders, so that a test can look at what is left. Stop is still
// needed.
func (m *Manager) Kill() error {
	if !m.Private() {
		return errors.New("cannot kill a systemd manager that the harness did not start")
	}
	// The manager first: it would start services again that are killed.
	select {
	case <-m.exited:
	default:
		if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("cannot end the systemd manager: %w", err)
		}
		<-m.exited
	}
	return errors.Join(m.group.kill(), m.group.remove())
}

func (m *Manager) removeFiles() error {
	var errs []error
	for _, path := range m.remove {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

func (m *Manager) socket() string { return filepath.Join(m.RuntimeDir, "systemd", "private") }

func (m *Manager) dial() error {
	conn, err := net.Dial("unix", m.socket())
	if err != nil {
		return err
	}
	return conn.Close()
}

// unitPath is the manager's search path, highest priority first, in systemd's
// own order.
func (m *Manager) unitPath(library string) string {
	return strings.Join([]string{
		filepath.Join(m.ConfigDir, "systemd", "user.control"),
		filepath.Join(m.RuntimeDir, "systemd", "user.control"),
		filepath.Join(m.RuntimeDir, "systemd", "transient"),
		m.UnitDir(),
		filepath.Join(m.RuntimeDir, "systemd", "user"),
		filepath.Join(m.DataDir, "systemd", "user"),
		library,
	}, ":")
}

func (m *Manager) waitUntilUp(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// Until its own start-up job is done a manager isn't idle, and timings differ.
		if m.dial() == nil {
			// is-system-running would answer "offline": it looks at /run/systemd itself.
			state, err := m.Systemctl("show", "--property=SystemState", "--value")
			if state == "running" || state == "degraded" {
				return nil
			}
			if state == "" {
				return err
			}
		}
		select {
		case <-m.exited:
			return fmt.Errorf("cannot start a systemd manager: it ended at once; it needs a cgroup that uid %d may write (run as root, or as a user with a systemd user manager)", os.Getuid())
		case <-ctx.Done():
			return fmt.Errorf("cannot start a systemd manager with the socket %s: %w", m.socket(), ctx.Err())
		case <-tick.C:
		}
	}
}

// findSystemd returns the path of systemd's binary, which isn't in PATH.
func findSystemd() (string, error) {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("cannot find systemd's binary; install it (Debian, Ubuntu: apt-get install systemd)")
}

// copyStandardUnits copies the units that a manager can't do without.
func copyStandardUnits(systemdDir, to string) error {
	from := filepath.Join(systemdDir, "user")
	var names []string
	for _, pattern := range []string{"*.target", "*.slice", "systemd-exit.service"} {
		found, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil {
			return err
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		return fmt.Errorf("cannot find the standard user units in %s; install systemd", from)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // A dangling link of another package.
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
