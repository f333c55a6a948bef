package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Keep this host as its manifest says, until stopped",
		Long: `Poll, verify and reconcile until SIGTERM or SIGINT. SIGHUP polls and looks at the
whole host now. Speaks sd_notify (READY, STATUS, WATCHDOG). Logs JSON, or text on
a terminal.

` + exitcode.Help,
		RunE: func(c *cobra.Command, _ []string) error { return runRun(c.Context(), o) },
	}
}

func runRun(ctx context.Context, o *options) error {
	// One goroutine works at a time, and what is heavy runs in children, which
	// use every processor. With one here, a poll wakes fewer threads: two thirds
	// of the CPU time at rest.
	runtime.GOMAXPROCS(1)
	cfg, err := o.load()
	if err != nil {
		return err
	}
	log := o.logger(cfg.Log)
	metrics := report.NewMetrics()
	a, err := newAgent(ctx, cfg, log, func(s v1.NodeStatus) error {
		metrics.Set(s)
		return report.WriteStatus(cfg.Paths.Status(), s)
	})
	if err != nil {
		return err
	}
	defer a.close()
	if cfg.Metrics.Listen != "" {
		stop, err := serveMetrics(cfg.Metrics.Listen, metrics.Handler())
		if err != nil {
			return err
		}
		defer stop()
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	wake := make(chan struct{}, 1)
	go func() {
		for range hangup {
			select {
			case wake <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	log.Info("started", "node", cfg.Node, "scope", cfg.Scope, "source", a.sourceName)
	err = a.loop.Run(ctx, wake)
	log.Info("stopped")
	return err
}

// serveMetrics serves until the returned function is called.
func serveMetrics(addr string, h http.Handler) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve metrics (metrics.listen): %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	s := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "metrics:", err)
		}
	}()
	return func() {
		_ = s.Close()
		<-done
	}, nil
}
