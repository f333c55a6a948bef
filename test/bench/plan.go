package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// planSuite plans 1,000 resources with nothing to do. The planner has no command
// of its own, so its Go benchmark runs; the peer is what also compares a tree
// of that many files with what is wanted and finds nothing.
func planSuite(ctx context.Context, env environment, table *Table) error {
	env.progress("planning 1,000 resources")
	out, err := exec.CommandContext(ctx, "go", "test", "./agent/internal/plan", "-run", "^$", "-bench", "^BenchmarkNothingToDo$", "-benchtime", "200x").CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot run the planner's benchmark: %w\n%s", err, out)
	}
	match := regexp.MustCompile(`\s(\d+) ns/op`).FindSubmatch(out)
	if match == nil {
		return fmt.Errorf("the planner's benchmark printed no time:\n%s", out)
	}
	ns, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err != nil {
		return err
	}
	peer, err := gitStatus(ctx, filepath.Join(env.dir, "plan"))
	if err != nil {
		return err
	}
	table.Add(Row{
		What: "plan, 1,000 resources, nothing to do: time", Ours: Time(time.Duration(ns)),
		Peer: Time(peer), PeerName: "git status, 1,000 files", Target: Time(5 * time.Millisecond),
	})
	return nil
}

// gitStatus times git status over 1,000 small unchanged files, best of five.
func gitStatus(ctx context.Context, dir string) (best time.Duration, err error) {
	git := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "user.name=Bench", "-c", "user.email=bench@example.com"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), fmt.Appendf(nil, "KEY=%d\n", i), 0o644); err != nil {
			return 0, err
		}
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}, {"commit", "--quiet", "--message", "all"}, {"status"}} {
		if err := git(args...); err != nil {
			return 0, err
		}
	}
	for range 5 {
		start := time.Now()
		if err := git("status", "--porcelain"); err != nil {
			return 0, err
		}
		if took := time.Since(start); best == 0 || took < best {
			best = took
		}
	}
	return best, nil
}
