package systemd_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/systemd"
	"github.com/gpuaas/node-agent/test/harness"
)

// What a full look at 20 running services costs.
func BenchmarkUnits20(b *testing.B) {
	m := harness.NewManager(b)
	c := systemd.New(config(m))
	b.Cleanup(c.Close)
	var names []string
	for i := range 20 {
		name := fmt.Sprintf("gpuaas-%02d.service", i)
		names = append(names, name)
		writeUnit(b, m, name, sleeperUnit)
		check(b, c.Start(b.Context(), name))
	}
	before := cpuTime(b)
	for b.Loop() {
		if _, err := c.Units(b.Context(), names); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e6/float64(b.N), "cpu-ms/op")
}

// cpuTime is what this process used until now; the manager's share isn't in it.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
