// Command bench measures what the design promises, beside the programs that do
// the same by other means, and prints a table of what, ours, peer's, ratio,
// target. It starts what it needs itself and takes it away again.
//
// A suite is a function that adds rows; each has its file. Figures of CPU are
// user and system time of the processes concerned, as the kernel counts them,
// and don't contain the servers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// suite is one group of figures.
type suite struct {
	name string
	run  func(ctx context.Context, env environment, table *Table) error
}

func suites() []suite {
	return []suite{
		{"poll", pollSuite},
		{"idle", idleSuite},
		{"plan", planSuite},
	}
}

// environment is what suites are given.
type environment struct {
	// agent and signer are the binaries.
	agent, signer string
	// dir is for files, removed at the end.
	dir string
	// nodes are the sizes of fleets.
	nodes []int
	// progress takes lines for whoever waits.
	progress func(format string, args ...any)
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == serveCommand {
		exit(serveGit(os.Args[2], os.Stdin, os.Stdout))
	}
	only := flag.String("only", "", "run only the suites whose names this regular expression matches")
	nodes := flag.String("nodes", "10,10000,100000", "sizes of fleets")
	bin := flag.String("bin", "bin", "folder of the built binaries")
	asJSON := flag.String("json", "", "write the table to this file too, as JSON")
	strict := flag.Bool("strict", false, "fail when a target is missed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, *only, *nodes, *bin, *asJSON, *strict))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, only, nodes, bin, asJSON string, strict bool) (err error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	env := environment{progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	for n := range strings.SplitSeq(nodes, ",") {
		size, err := strconv.Atoi(n)
		if err != nil || size < 1 {
			return fmt.Errorf("%q is no size of a fleet", n)
		}
		env.nodes = append(env.nodes, size)
	}
	for name, path := range map[string]*string{"gpuaas-node-agent": &env.agent, "gpuaas-signer": &env.signer} {
		if *path, err = filepath.Abs(filepath.Join(bin, name)); err != nil {
			return err
		}
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("%w; run make build first", err)
		}
	}
	if env.dir, err = os.MkdirTemp("", "gpuaas-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(env.dir)) }()
	var table Table
	for _, s := range suites() {
		if match.MatchString(s.name) {
			if err := s.run(ctx, env, &table); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	if err := table.Print(os.Stdout); err != nil {
		return err
	}
	if asJSON != "" {
		if err := writeJSON(asJSON, &table); err != nil {
			return err
		}
	}
	if missed := table.Missed(); strict && missed > 0 {
		return fmt.Errorf("%d targets missed", missed)
	}
	return nil
}

func writeJSON(path string, table *Table) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return table.JSON(io.Writer(f))
}
