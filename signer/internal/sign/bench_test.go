package sign_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

// big is a fleet of n signed nodes.
func big(b *testing.B, n int) *fleet {
	b.Helper()
	f := newFleet(b, "fleet")
	changed, removed, err := sign.Update(f.open(), f.nodes("fleet", 0, n, 2), nil, everyday("fleet"), f.now, v1.Expiries{})
	if err != nil {
		b.Fatal(err)
	}
	f.apply(changed, removed)
	return f
}

var sizes = []int{10, 1000, 10_000, 100_000}

// BenchmarkSignAll signs the manifests of a whole fleet.
func BenchmarkSignAll(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newFleet(b, "fleet")
			all := f.nodes("fleet", 0, n, 2)
			for b.Loop() {
				if _, _, err := sign.Update(f.open(), all, nil, everyday("fleet"), f.now, v1.Expiries{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignOne opens what is published, signs one node's change, and verifies the result.
func BenchmarkSignOne(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := big(b, n)
			one := f.nodes("fleet", 3, 4, 3)
			next := maps.Clone(f.files)
			for b.Loop() {
				changed, _, err := sign.Update(f.open(), one, nil, everyday("fleet"), f.now, v1.Expiries{})
				if err != nil {
					b.Fatal(err)
				}
				maps.Copy(next, changed)
				if _, err := trust.VerifyAll(f.root, next, trust.AllOptions{Now: f.now, Previous: f.files}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVerify is one node's verification: cold with nothing stored, warm after
// another node's change, and of unchanged files.
func BenchmarkVerify(b *testing.B) {
	for _, n := range sizes {
		f := big(b, n)
		in := trust.Input{BootstrapRoot: f.root, Repository: f.files, Now: f.now, Team: "fleet", Node: nodeID(3)}
		bytes := 0
		for _, path := range trust.Wanted("fleet", nodeID(3)) {
			bytes += len(f.files[path])
		}
		run := func(name string, in trust.Input) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportMetric(float64(bytes), "metadata-bytes")
				for b.Loop() {
					if _, _, err := trust.Verify(in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("cold", in)
		_, state, err := trust.Verify(in)
		if err != nil {
			b.Fatal(err)
		}
		in.Stored = state
		run("unchanged", in)
		f.update(f.nodes("fleet", 4, 5, 3), nil, "fleet")
		in.Repository = f.files
		run("warm", in)
	}
}
