package observe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/agent/internal/systemd"
	"github.com/gpuaas/node-agent/schema/task"
	"github.com/gpuaas/node-agent/test/harness"
)

// A full look at 50 environment files and 20 running units of a real manager.
func BenchmarkObserve(b *testing.B) {
	m := harness.NewManager(b)
	c := systemd.New(systemd.Config{Scope: systemd.User, RuntimeDir: m.RuntimeDir})
	b.Cleanup(c.Close)
	files := b.TempDir()
	var resources []task.Resource
	for i := range 50 {
		path := filepath.Join(files, fmt.Sprintf("%02d.env", i))
		write(b, path, strings.Repeat("NAME=value\n", 50), 0o640)
		resources = append(resources, task.File{Path: path})
	}
	for i := range 20 {
		name := fmt.Sprintf("gpuaas-%02d.service", i)
		check(b, os.WriteFile(filepath.Join(m.UnitDir(), name), []byte("[Service]\nExecStart=/bin/sleep 1000\n"), 0o600))
		check(b, c.Start(b.Context(), name))
		resources = append(resources, task.Unit{Name: name}, task.Service{Unit: name})
	}
	o := observe.Observer{Units: c, Packages: packages{}, UnitDir: m.UnitDir()}
	before := cpuTime(b)
	for b.Loop() {
		if _, err := o.Observe(b.Context(), resources, host.NewInventory()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e6/float64(b.N), "cpu-ms/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
