package integration_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// What people and accidents do to a node is repaired because it happened, not
// because somebody looked: polls and scans are an hour away.
func TestDriftIsRepairedFromEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	w.install()
	w.deliver("run the story")
	env, unitFile := filepath.Join(w.node.etc, "story.env"), filepath.Join(w.node.units, service)
	current := filepath.Join(w.node.packages, "story", "current")
	wanted := map[string]string{env: contentOf(t, env), unitFile: contentOf(t, unitFile)}
	version, err := os.Readlink(current)
	w.must(err)

	// asWanted looks at everything that is damaged below.
	asWanted := func() error {
		for path, content := range wanted {
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			mode := os.FileMode(0o644)
			if path == env {
				mode = 0o600
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != content || info.Mode() != mode {
				return errors.Join(err, fmt.Errorf("%s (%s): %q", path, info.Mode(), got))
			}
		}
		if target, err := os.Readlink(current); err != nil || target != version {
			return errors.Join(err, fmt.Errorf("current -> %s", target))
		}
		u := w.unit(service)
		if u["ActiveState"] != "active" || u["UnitFileState"] != "enabled" || u["LoadState"] != "loaded" || u["NeedDaemonReload"] != "no" {
			return fmt.Errorf("%v", u)
		}
		return nil
	}

	pid := func() int { return w.unit(service).pid(t) }
	for i, damage := range []struct {
		what string
		do   func() error
	}{
		{"env file edited", func() error { return appendTo(env, "VALUE=mine\n") }},
		{"env file deleted", func() error { return os.Remove(env) }},
		{"env file's mode changed", func() error { return os.Chmod(env, 0o644) }},
		{"env file replaced by a symlink", func() error {
			mine := filepath.Join(w.dir, "mine.env")
			if err := os.WriteFile(mine, []byte("VALUE=mine\n"), 0o600); err != nil {
				return err
			}
			if err := os.Remove(env); err != nil {
				return err
			}
			return os.Symlink(mine, env)
		}},
		{"folder of the env file removed", func() error { return os.RemoveAll(w.node.etc) }},
		{"unit file edited", func() error { return appendTo(unitFile, "[Service]\nNice=5\n") }},
		{"unit file edited and loaded", func() error {
			if err := appendTo(unitFile, "[Service]\nNice=5\n"); err != nil {
				return err
			}
			_, err := w.manager.Systemctl("daemon-reload")
			return err
		}},
		{"unit file deleted", func() error { return os.Remove(unitFile) }},
		{"unit masked by hand", func() error {
			if err := os.Remove(unitFile); err != nil {
				return err
			}
			if err := os.Symlink("/dev/null", unitFile); err != nil {
				return err
			}
			_, err := w.manager.Systemctl("daemon-reload")
			return err
		}},
		{"service stopped", func() error { _, err := w.manager.Systemctl("stop", service); return err }},
		{"service killed", func() error { return syscall.Kill(pid(), syscall.SIGKILL) }},
		{"service disabled", func() error { _, err := w.manager.Systemctl("disable", service); return err }},
		{"service disabled and stopped", func() error { _, err := w.manager.Systemctl("disable", "--now", service); return err }},
		{"link of the package moved", func() error {
			if err := os.Remove(current); err != nil {
				return err
			}
			return os.Symlink("versions", current)
		}},
		{"link of the package removed", func() error { return os.Remove(current) }},
		{"version of the package removed", func() error { return os.RemoveAll(filepath.Join(filepath.Dir(current), version)) }},
	} {
		// The agent repairs a few times at once and then ever more slowly; a new
		// start forgets that.
		if i%3 == 2 {
			w.restartAgent()
			w.eventually("the agent is at rest", w.atRest)
		}
		repairs := w.repairs()
		w.must(damage.do())
		start, took := time.Now(), time.Duration(0)
		w.eventually(damage.what, func() error {
			if err := asWanted(); err != nil {
				took = time.Since(start) // at least
				return err
			}
			if _, err := os.Stat(filepath.Join(current, "bin", "service")); err != nil {
				return err
			}
			// Fetching what is missing isn't counted.
			if now := w.repairs(); now == repairs && damage.what != "version of the package removed" {
				return fmt.Errorf("as it should be, but no repair is counted (%d)", now)
			}
			return nil
		})
		t.Logf("%-34s repaired in %s", damage.what, took.Round(time.Millisecond))
		w.eventually("the agent is at rest", w.atRest)
		w.answers("one")
	}
	w.exits(0)
}

func (w *world) repairs() int64 {
	s, err := w.peek()
	w.must(err)
	return s.Repairs
}

// atRest says whether the agent has nothing to do.
func (w *world) atRest() error {
	s, err := w.peek()
	if err == nil && (s.Phase != "Committed" || s.Condition("Drifted").Status != "False") {
		err = fmt.Errorf("phase %s, %+v", s.Phase, s.Condition("Drifted"))
	}
	return err
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Close()
}
