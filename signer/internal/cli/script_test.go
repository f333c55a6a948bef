package cli_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gpuaas/node-agent/signer/internal/cli"
	"github.com/gpuaas/node-agent/test/harness"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gpuaas-signer": func() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestStories plays testdata/*.txtar with the real binary, git over HTTP and a
// registry. UPDATE_SCRIPTS=1 writes what the cmp lines compare with anew.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"registry":  startRegistry,
			"gitserver": startGitServer,
		},
	})
}

func setup(e *testscript.Env) error {
	home := filepath.Join(e.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	e.Setenv("HOME", home)
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_DATA_HOME", "SOURCE_DATE_EPOCH", "DOCKER_CONFIG"} {
		e.Setenv(name, "")
	}
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	config := "[user]\n\tname = Release Engineer\n\temail = release@example.com\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n"
	return os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o644)
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %v: %v", args[1:], err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("%v exits %d, want %d", args[1:], code, want)
	}
}

// startRegistry starts an OCI registry; $REGISTRY is its host.
func startRegistry(ts *testscript.TestScript, _ bool, _ []string) {
	dir := ts.MkAbs("registry-data")
	ts.Check(os.MkdirAll(dir, 0o755))
	r, err := harness.StartRegistry(context.Background(), harness.RegistryOptions{Dir: dir})
	ts.Check(err)
	ts.Defer(func() { _ = r.Stop() })
	ts.Setenv("REGISTRY", r.Host)
}

// startGitServer serves an empty bare repository over HTTP; $REMOTE is its URL.
func startGitServer(ts *testscript.TestScript, _ bool, _ []string) {
	root := ts.MkAbs("git")
	_, err := harness.CreateGitRepo(filepath.Join(root, "fleet.git"))
	ts.Check(err)
	s, err := harness.StartGitServer(harness.GitServerOptions{Root: root})
	ts.Check(err)
	ts.Defer(func() { _ = s.Stop() })
	ts.Setenv("REMOTE", s.URL+"/fleet.git")
}
