// Package integration_test tells what operators live through with node-agent, as
// tests: both real binaries against a real systemd manager, a real git
// http-backend and a real OCI registry.
//
// Each story has a world of its own (world_test.go): a fleet repo with keys, a
// git server, a manager, one node with its agent as a unit of that manager. The
// registry with the packages is shared, except where a story breaks it. What is
// claimed is looked at from outside: systemctl, the file system, /proc, HTTP.
// What the agent says of itself is checked as well, where operators rely on it.
package integration_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/gpuaas/node-agent/test/harness"
)

// built is where TestMain put the binaries.
var built string

// shared is the registry that stories may read and add to, but not break.
var shared struct {
	sync.Once
	dir      string
	registry *harness.Registry
	err      error
}

// parallel is how many stories run at a time unless -parallel says more: they
// mostly wait.
const parallel = 6

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); runtime.GOMAXPROCS(0) < parallel && f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(parallel)); err != nil {
			panic(err)
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "gpuaas-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if shared.registry != nil {
			if err := shared.registry.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	built, shared.dir = filepath.Join(dir, "bin"), filepath.Join(dir, "registry")
	if err := build(built); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to+"/",
		"../../agent/cmd/gpuaas-node-agent", "../../signer/cmd/gpuaas-signer", "./service")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build: %w\n%s", err, out)
	}
	return nil
}

// sharedRegistry starts the registry that all stories share.
func sharedRegistry(t *testing.T) *harness.Registry {
	t.Helper()
	shared.Do(func() {
		if shared.err = os.MkdirAll(shared.dir, 0o755); shared.err == nil {
			shared.registry, shared.err = harness.StartRegistry(context.Background(), harness.RegistryOptions{Dir: shared.dir})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.registry
}
