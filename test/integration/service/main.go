// Command service is what the fleet of the integration tests runs: a small HTTP
// server that tells what it was started with, and misbehaves when it is told to.
//
// Environment:
//
//	LISTEN  host:port; without it, and without a socket from systemd, it only waits
//	VALUE   shown at /
//	FAIL    "exit" ends at once, "deaf" never listens, "health" answers 503 at /health
//	STARTS  a file that gets one line at each start: pid, version, value
//
// SIGHUP counts a reload. With -once it adds its line to STARTS and ends.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

func run() error {
	version, err := ownVersion()
	if err != nil {
		return err
	}
	if err := noteStart(version); err != nil {
		return err
	}
	if len(os.Args) > 1 && os.Args[1] == "-once" {
		return nil
	}
	fail := os.Getenv("FAIL")
	if fail == "exit" {
		return fmt.Errorf("told to exit")
	}
	var reloads atomic.Int64
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			reloads.Add(1)
		}
	}()
	l, err := listen(fail)
	if err != nil {
		return err
	}
	if l == nil {
		select {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"version": version, "value": os.Getenv("VALUE"), "reloads": reloads.Load(), "pid": os.Getpid(),
		})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if fail == "health" {
			http.Error(w, "told to fail", http.StatusServiceUnavailable)
		}
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return s.Serve(l)
}

// ownVersion is what the file "version" of the package says.
func ownVersion() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "..", "version"))
	return strings.TrimSpace(string(data)), err
}

func noteStart(version string) error {
	path := os.Getenv("STARTS")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%d %s %s\n", os.Getpid(), version, os.Getenv("VALUE")); err != nil {
		return err
	}
	return f.Close()
}

// listen returns the socket that systemd handed over, or one of its own, or nil.
func listen(fail string) (net.Listener, error) {
	if fail == "deaf" {
		return nil, nil
	}
	if os.Getenv("LISTEN_FDS") != "" {
		return net.FileListener(os.NewFile(3, "socket"))
	}
	if addr := os.Getenv("LISTEN"); addr != "" {
		return net.Listen("tcp", addr)
	}
	return nil, nil
}
