package child_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/child"
)

// actWithinLimits are the requests that meet a limit.
func actWithinLimits(do string) (text string, known bool, err error) {
	verb, argument, _ := strings.Cut(do, " ")
	switch verb {
	case "grow":
		var kept [][]byte
		for range 1024 {
			block := make([]byte, 1<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			kept = append(kept, block)
		}
		return strconv.Itoa(len(kept)), true, nil
	case "garbage":
		sum := 0
		for range 2048 {
			sum += len(make([]byte, 1<<20))
		}
		return strconv.Itoa(sum >> 20), true, nil
	case "spin":
		for i := 0; ; i++ {
			if i == -1 {
				return "", true, nil
			}
		}
	case "write":
		return "", true, os.WriteFile(argument, make([]byte, 1<<20), 0o600)
	case "open":
		for n := range 1000 {
			if _, err := os.Open(os.DevNull); err != nil {
				return strconv.Itoa(n), true, err
			}
		}
		return "", true, nil
	case "show":
		data, err := os.ReadFile(argument)
		return string(data), true, err
	case "who":
		return fmt.Sprint(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()), true, nil
	case "descriptor":
		_, err := os.NewFile(3, "given").WriteString("from the child")
		return "", true, err
	}
	return "", false, nil
}

func limited(t *testing.T, do string, l child.Limits) (string, error) {
	t.Helper()
	c := command(do)
	c.Limits = l
	var got result
	err := child.Run(t.Context(), c, &got)
	return got.Text, err
}

func TestLimitsEndTheChild(t *testing.T) {
	for name, tc := range map[string]struct {
		do     string
		limits child.Limits
		want   child.LimitError
	}{
		"memory":   {"grow", child.Limits{Memory: 128 << 20}, child.LimitError{Limit: "memory", Value: "128 MiB"}},
		"CPU time": {"spin", child.Limits{CPUTime: time.Second / 2}, child.LimitError{Limit: "CPU time", Value: "1 s"}},
		"deadline": {"hang", child.Limits{Deadline: time.Second}, child.LimitError{Limit: "time", Value: "1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := limited(t, tc.do, tc.limits)
			if raceDetector && name == "memory" {
				// The detector itself is refused memory first, and ends the child with words of its own.
				if err == nil {
					t.Fatal("the child outgrew its limit")
				}
				return
			}
			var reached *child.LimitError
			if !errors.As(err, &reached) || *reached != tc.want {
				t.Fatalf("got %v; want %v", err, &tc.want)
			}
		})
	}
}

func TestTheDeadlineKillsTheWholeGroup(t *testing.T) {
	grand := 0
	c := command("hang")
	c.Limits.Deadline = 2 * time.Second
	c.Progress = func(line []byte) { grand, _ = strconv.Atoi(string(line)) }
	var reached *child.LimitError
	if err := child.Run(t.Context(), c, nil); !errors.As(err, &reached) {
		t.Fatalf("got %v", err)
	}
	if grand == 0 {
		t.Fatal("the grandchild never started")
	}
	for end := time.Now().Add(30 * time.Second); syscall.Kill(grand, 0) == nil && !zombie(grand); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d outlived its group", grand)
		}
	}
}

// Garbage isn't growth: the child collects it before the limit.
func TestGarbageIsCollectedInTime(t *testing.T) {
	if text, err := limited(t, "garbage", child.Limits{Memory: 128 << 20}); err != nil || text != "2048" {
		t.Fatalf("got %q, %v", text, err)
	}
}

func TestLimitsThatAreErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if _, err := limited(t, "write "+file, child.Limits{FileSize: 1000}); err == nil || !strings.Contains(err.Error(), "file too large") {
		t.Errorf("writing too much: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() > 1000 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if _, err := limited(t, "open", child.Limits{OpenFiles: 20}); err == nil || !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("opening too many: %v", err)
	}
}

func TestLimitsOfTheKernel(t *testing.T) {
	text, err := limited(t, "show /proc/self/limits", child.Limits{FileSize: 4242, OpenFiles: 77, CPUTime: 90 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Max file size": "4242", "Max open files": "77", "Max cpu time": "90", "Max core file size": "0"} {
		line, _, _ := strings.Cut(text[strings.Index(text, name)+len(name):], "\n")
		if fields := strings.Fields(line); len(fields) < 2 || fields[0] != want || name != "Max cpu time" && fields[1] != want {
			t.Errorf("%s: %q, want %s", name, line, want)
		}
	}
}

func TestNoNewPrivileges(t *testing.T) {
	text, err := limited(t, "show /proc/self/status", child.Limits{})
	if err != nil || !strings.Contains(text, "NoNewPrivs:\t1") {
		t.Errorf("the child may gain privileges: %v\n%s", err, text)
	}
	// The parent keeps them: what it starts otherwise mustn't suffer.
	out, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil || !strings.Contains(string(out), "NoNewPrivs:\t0") {
		t.Errorf("the parent gave up privileges: %v\n%s", err, out)
	}
}

func TestAsAnotherUser(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(do, user string) (string, error) {
		c := command(do)
		c.User = user
		var got result
		err := child.Run(t.Context(), c, &got)
		return got.Text, err
	}
	me := fmt.Sprint(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid())
	if who, err := ask("who", ""); err != nil || who != me {
		t.Errorf("without a user: %q, %v", who, err)
	}
	if os.Geteuid() != 0 {
		// Who isn't root has nothing to drop: the child is what its parent is.
		if who, err := ask("who", child.Nobody); err != nil || who != me {
			t.Errorf("without root: %q, %v", who, err)
		}
		return
	}
	if who, err := ask("who", child.Nobody); err != nil || who != "65534 65534 65534 65534" {
		t.Errorf("as nobody: %q, %v", who, err)
	}
	status, err := ask("show /proc/self/status", child.Nobody)
	if err != nil || !strings.Contains(status, "CapEff:\t0000000000000000") || !strings.Contains(status, "CapPrm:\t0000000000000000") {
		t.Errorf("nobody has capabilities: %v\n%s", err, status)
	}
	for _, line := range strings.Split(status, "\n") {
		if groups, ok := strings.CutPrefix(line, "Groups:"); ok && strings.TrimSpace(groups) != "" {
			t.Errorf("nobody is in the groups %q", groups)
		}
	}
	if _, err := ask("show "+secret, child.Nobody); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("reading what is root's: %v", err)
	}
	if _, err := ask("who", "no-such-account"); err == nil || !strings.Contains(err.Error(), "no-such-account") {
		t.Errorf("an unknown account: %v", err)
	}
	if _, err := ask("who", "1:x"); err == nil || !strings.Contains(err.Error(), "neither an account nor UID:GID") {
		t.Errorf("a bad number: %v", err)
	}
}

func TestFilesAreHandedOn(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := command("descriptor")
	c.User, c.Files = child.Nobody, []*os.File{f}
	if err := child.Run(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(f.Name()); err != nil || string(data) != "from the child" {
		t.Errorf("got %q, %v", data, err)
	}
}
