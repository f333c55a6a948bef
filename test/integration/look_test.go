package integration_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What follows looks at the node as an operator would, never through the agent.

// systemctl runs systemctl, which must succeed.
func (w *world) systemctl(args ...string) string {
	w.t.Helper()
	out, err := w.manager.Systemctl(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// unit is what systemctl show says.
type unit map[string]string

func (w *world) unit(name string) unit {
	w.t.Helper()
	u := unit{}
	for line := range strings.SplitSeq(w.systemctl("show", "-p",
		"LoadState,ActiveState,SubState,UnitFileState,InvocationID,MainPID,NRestarts,Result,StatusText,Description,NeedDaemonReload", name), "\n") {
		key, value, _ := strings.Cut(line, "=")
		u[key] = value
	}
	return u
}

func (u unit) pid(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(u["MainPID"])
	if err != nil || pid == 0 {
		t.Fatalf("no main process: %v", u)
	}
	return pid
}

// runs checks that a unit is active and enabled, and returns it.
func (w *world) runs(name string) unit {
	w.t.Helper()
	u := w.unit(name)
	if u["ActiveState"] != "active" || u["UnitFileState"] != "enabled" || u["LoadState"] != "loaded" || u["NeedDaemonReload"] != "no" {
		w.t.Fatalf("%s doesn't run as it should: %v", name, u)
	}
	return u
}

// gone checks that there is no trace of a unit.
func (w *world) gone(name string) {
	w.t.Helper()
	if u := w.unit(name); u["LoadState"] != "not-found" || u["ActiveState"] != "inactive" || u["UnitFileState"] != "" {
		w.t.Errorf("%s is still there: %v", name, u)
	}
	links, err := filepath.Glob(filepath.Join(w.node.units, "*.wants", name))
	w.must(err)
	if len(links) > 0 {
		w.t.Errorf("links are left: %v", links)
	}
}

// answer is what the service answers at /.
type answer struct {
	Version, Value string
	Reloads, PID   int
}

// ask asks the service.
func (w *world) ask() (answer, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", w.port))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var a answer
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// answers waits until the service answers with a value, and returns its answer.
func (w *world) answers(value string) answer {
	w.t.Helper()
	var a answer
	w.eventually("the service answers "+value, func() (err error) {
		if a, err = w.ask(); err == nil && a.Value != value {
			err = fmt.Errorf("it answers %+v", a)
		}
		return err
	})
	return a
}

// environ is a variable of a running process.
func (w *world) environ(pid int, name string) string {
	w.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	w.must(err)
	for kv := range bytes.SplitSeq(data, []byte{0}) {
		if value, ok := strings.CutPrefix(string(kv), name+"="); ok {
			return value
		}
	}
	w.t.Fatalf("process %d has no %s", pid, name)
	return ""
}

// starts returns the lines that services noted: "version value".
func (w *world) starts() []string {
	w.t.Helper()
	data, err := os.ReadFile(w.node.starts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	w.must(err)
	var out []string
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, rest)
	}
	return out
}

// listing is every path below some folders with type, mode, time and content.
type listing map[string]string

// list looks at the folders where tasks put things, or at others.
func (w *world) list(dirs ...string) listing {
	w.t.Helper()
	if len(dirs) == 0 {
		dirs = []string{w.node.etc, w.node.units, w.node.packages}
	}
	l := listing{}
	for _, dir := range dirs {
		w.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			text := info.Mode().String()
			switch {
			case info.Mode()&fs.ModeSymlink != 0:
				target, err := os.Readlink(path)
				if err != nil {
					return err
				}
				text += " -> " + target
			case info.Mode().IsRegular():
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text += fmt.Sprintf(" %s %d %x", info.ModTime().Format(time.RFC3339Nano), len(data), sha256.Sum256(data))
			}
			l[path] = text
			return nil
		}))
	}
	return l
}

// unitList is systemctl's list of all units and of all unit files, without the
// agent itself.
func (w *world) unitList() listing {
	w.t.Helper()
	l := listing{}
	for _, args := range [][]string{{"list-units", "--all", "--plain", "--no-legend"}, {"list-unit-files", "--no-legend"}} {
		for line := range strings.SplitSeq(w.systemctl(args...), "\n") {
			name, rest, _ := strings.Cut(line, " ")
			if name != agentUnit && !strings.HasSuffix(name, ".device") && !strings.HasSuffix(name, ".mount") {
				l[args[0]+" "+name] = strings.Join(strings.Fields(rest), " ")
			}
		}
	}
	return l
}

// sameUnits checks that systemd's lists are as before.
func (w *world) sameUnits(before, after listing) {
	w.t.Helper()
	if d := before.diff(after); d != "" {
		w.t.Errorf("units changed:\n%s", d)
	}
}

// diff tells how two listings differ.
func (before listing) diff(after listing) string {
	var out []string
	for path, was := range before {
		if now, ok := after[path]; !ok {
			out = append(out, "- "+path+" "+was)
		} else if now != was {
			out = append(out, "~ "+path+" "+was+" => "+now)
		}
	}
	for path, now := range after {
		if _, ok := before[path]; !ok {
			out = append(out, "+ "+path+" "+now)
		}
	}
	return strings.Join(out, "\n")
}

// same checks that the node's folders are exactly as before.
func (w *world) same(before, after listing) {
	w.t.Helper()
	if d := before.diff(after); d != "" {
		w.t.Errorf("the node changed:\n%s", d)
	}
}

// missing checks that nothing is at a path.
func (w *world) missing(paths ...string) {
	w.t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("%s is still there (%v)", p, err)
		}
	}
}

// says checks that a text has all of some parts.
func (w *world) says(text string, parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			w.t.Errorf("nothing about %q in: %s", p, text)
		}
	}
}

// writeFile is what somebody does by hand.
func writeFile(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }
