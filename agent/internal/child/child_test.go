package child_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

type request struct {
	Do   string
	Text string
}

type result struct{ Text string }

// TestMain lets the test binary be the child, as the agent's binary is its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "test-child" {
		if err := child.Serve(context.Background(), os.Stdin, os.Stdout, act); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func act(_ context.Context, r request) (result, error) {
	switch r.Do {
	case "fail":
		return result{}, fmt.Errorf("while asked: %w", &host.Error{
			Component: "fetch", Element: "package/x", Reason: v1.ReasonNoSpace, Retry: true, Err: errors.New("disk full"),
		})
	case "plain":
		return result{}, errors.New("something else")
	case "die":
		fmt.Fprintln(os.Stderr, "out of cheese")
		os.Exit(3)
	case "long":
		return result{strings.Repeat("x", 1000)}, nil
	case "progress":
		fmt.Fprint(os.Stderr, "one\ntwo\nthree")
	case "hang":
		// A grandchild in the same group: both must go.
		grand := exec.Command("sleep", "600")
		if err := grand.Start(); err != nil {
			return result{}, err
		}
		fmt.Fprintln(os.Stderr, grand.Process.Pid)
		time.Sleep(10 * time.Minute)
	case "silent":
		os.Exit(0)
	}
	if text, done, err := actWithinLimits(r.Do); done || err != nil {
		return result{text}, err
	}
	return result{"did " + r.Text}, nil
}

func command(do string) child.Command {
	return child.Command{Name: "test-child", Component: "fetch", Stdin: request{Do: do, Text: "it"}}
}

func TestRunReturnsTheResult(t *testing.T) {
	var got result
	if err := child.Run(t.Context(), command("work"), &got); err != nil || got.Text != "did it" {
		t.Fatalf("got %q, %v", got.Text, err)
	}
	if err := child.Run(t.Context(), command("work"), nil); err != nil {
		t.Fatalf("discarding the result: %v", err)
	}
}

func TestRunPassesErrorsOn(t *testing.T) {
	err := child.Run(t.Context(), command("fail"), nil)
	var e *host.Error
	if !errors.As(err, &e) {
		t.Fatalf("no host.Error: %v", err)
	}
	if e.Component != "fetch" || e.Element != "package/x" || e.Reason != v1.ReasonNoSpace || !e.Retry || e.Err.Error() != "disk full" {
		t.Errorf("fields lost: %+v", e)
	}
	err = child.Run(t.Context(), command("plain"), nil)
	if !errors.As(err, &e) || e.Reason != v1.ReasonInternal || !strings.Contains(err.Error(), "something else") {
		t.Errorf("plain error became %+v", err)
	}
}

func TestRunExplainsBrokenChildren(t *testing.T) {
	short := command("long")
	short.MaxOutput = 100
	missing := command("work")
	missing.Executable = "/does/not/exist"
	for name, tc := range map[string]struct {
		command child.Command
		want    string
	}{
		"died":       {command("die"), "out of cheese"},
		"no answer":  {command("silent"), "gave no valid answer"},
		"too much":   {short, "more than 100 bytes"},
		"no program": {missing, "/does/not/exist"},
		"bad stdin":  {child.Command{Name: "test-child", Stdin: make(chan int)}, "cannot encode the request"},
	} {
		t.Run(name, func(t *testing.T) {
			err := child.Run(t.Context(), tc.command, nil)
			var e *host.Error
			if !errors.As(err, &e) || e.Reason != v1.ReasonInternal || !e.Retry {
				t.Fatalf("got %#v", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q doesn't say %q", err, tc.want)
			}
		})
	}
}

func TestRunHandsOnProgress(t *testing.T) {
	var got []string
	c := command("progress")
	c.Progress = func(line []byte) { got = append(got, string(line)) }
	if err := child.Run(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, ",") != "one,two,three" {
		t.Errorf("got %q", got)
	}
}

func TestContextKillsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	grand := 0
	c := command("hang")
	c.Progress = func(line []byte) {
		grand, _ = strconv.Atoi(string(line))
		cancel()
	}
	err := child.Run(ctx, c, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if grand == 0 {
		t.Fatal("the grandchild never started")
	}
	deadline := time.Now().Add(30 * time.Second)
	for syscall.Kill(grand, 0) == nil && !zombie(grand) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived its group", grand)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// zombie reports a process that ended and that nobody has waited for, as where
// the tests run without an init that reaps.
func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(data, []byte(") Z "))
}

func TestServeRefusesNonsense(t *testing.T) {
	var out bytes.Buffer
	for _, in := range []string{"", "not json", `{"Do": 5}`} {
		if err := child.Serve(t.Context(), strings.NewReader(in), &out, act); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
	if out.Len() != 0 {
		t.Errorf("wrote %q", out.String())
	}
}
