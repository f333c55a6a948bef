// Command demo plays the main story of node-agent on this machine: from an
// empty folder to a running service, through changes, drift, an attack and
// removal. Everything in it is real: systemd, git over HTTP, an OCI registry.
//
// It prints each command so that a reader can repeat it, and believes nothing
// that the agent says: every step is checked from outside, with systemctl, the
// file system, /proc, git and HTTP. It exits 0 only if every check held, and
// leaves nothing behind. With -keep it waits, everything running, until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	flag.Parse()
	// Whoever pipes the output into head, or closes the terminal, wants nothing
	// left behind either. A broken pipe is noticed by the printer.
	signal.Ignore(syscall.SIGPIPE)
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // it is under nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newPrinter(os.Stdout, cancel)
	w, err := newWorld(ctx, out)
	defer func() {
		if w == nil {
			return
		}
		if err != nil {
			w.explain()
		}
		err = errors.Join(err, w.close())
	}()
	if err != nil {
		return err
	}
	if err := play(ctx, w, keep); err != nil {
		return err
	}
	if keep {
		w.lookAround()
		<-ctx.Done()
	}
	return nil
}

// play runs the chapters. With keep the last one, which removes the service,
// is left out, so that there is something to look at.
func play(ctx context.Context, w *world, keep bool) error {
	chapters := []struct {
		title string
		run   func(context.Context, *world) error
	}{
		{"init: a fleet repo from the template, and keys", createFleet},
		{"package: build, push and pin node_exporter by digest", buildPackage},
		{"change: validate, render, diff, merge, sign, publish", firstChange},
		{"node: an agent that knows its config, its bootstrap root and its id", startAgent},
		{"update: a new env value restarts one service, once", changeValue},
		{"drift: a file edited and a service stopped by hand", handMade},
		{"attack: a commit on the signed branch that nobody signed", unsigned},
		{"removal: the package leaves the fleet", remove},
	}
	if keep {
		chapters = chapters[:len(chapters)-1]
	}
	for i, c := range chapters {
		if err := ctx.Err(); err != nil {
			return errors.New("interrupted")
		}
		w.out.chapter(i+1, c.title)
		if err := c.run(ctx, w); err != nil {
			return fmt.Errorf("chapter %d (%s): %w", i+1, c.title, err)
		}
	}
	w.out.finished()
	return nil
}
