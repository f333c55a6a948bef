package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/config"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const head = "apiVersion: fleet.gpuaas.dev/v1\nkind: AgentConfig\n"

// write makes files below a new folder and returns config.yaml's path there.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.yaml")
}

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestFlagOverEnvironmentOverDropInOverFile(t *testing.T) {
	file := write(t, map[string]string{
		"config.yaml":         head + "node: from-file\nteam: from-file\nsource: {url: /from-file, branch: from-file}\npoll: {interval: 5s}\n",
		"config.d/10-a.yaml":  head + "team: from-drop-in\nsource: {branch: from-drop-in}\n",
		"config.d/20-b.yaml":  head + "poll: {scan: 1m}\n",
		"config.d/ignored.md": "not yaml: [",
	})
	cfg, err := config.Load(config.System, file, env(map[string]string{
		"GPUAAS_NODE_ID": "from-env", "GPUAAS_SOURCE_URL": "/from-env",
	}), config.Overrides{SourceURL: "/from-flag"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Node != "from-env" || cfg.Team != "from-drop-in" || cfg.Source.URL != "/from-flag" || cfg.Source.Branch != "from-drop-in" {
		t.Errorf("%+v", cfg)
	}
	if time.Duration(cfg.Poll.Interval) != 5*time.Second || time.Duration(cfg.Poll.Scan) != time.Minute {
		t.Errorf("poll is %+v", cfg.Poll)
	}
	if cfg.Paths.Packages != "/opt/gpuaas/packages" || cfg.Paths.Config != filepath.Dir(file) {
		t.Errorf("paths are %+v", cfg.Paths)
	}
}

func TestUserScopeLivesBelowXDG(t *testing.T) {
	vars := map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "/s",
		"GPUAAS_NODE_ID": "n", "GPUAAS_SOURCE_URL": "/r"}
	cfg, err := config.Load(config.User, "", env(vars), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Paths{
		Config: "/home/u/.config/gpuaas/node-agent", State: "/s/gpuaas/node-agent", Run: "/run/user/7/gpuaas/node-agent",
		Packages: "/home/u/.local/share/gpuaas/packages", Units: "/home/u/.config/systemd/user", Files: []string{"/home/u/.config/gpuaas"},
	}
	if got := cfg.Paths; got.Config != want.Config || got.State != want.State || got.Run != want.Run ||
		got.Packages != want.Packages || got.Units != want.Units || got.Files[0] != want.Files[0] {
		t.Errorf("paths are %+v, want %+v", got, want)
	}
	if !cfg.Guard.UserScope {
		t.Error("the guard doesn't know the scope")
	}
	delete(vars, "XDG_RUNTIME_DIR")
	if _, err := config.Load(config.User, "", env(vars), config.Overrides{}); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("without a runtime folder: %v", err)
	}
}

func TestBadConfigurationSaysWhereAndWhatIsAllowed(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"unknown field": {map[string]string{"config.yaml": head + "node: a\nsorce: {url: /r}\n"}, []string{"config.yaml:4:1", "sorce", "source"}},
		"two errors":    {map[string]string{"config.yaml": head + "log: {level: loud, format: xml}\n"}, []string{"log.level", "warn", "log.format", "json"}},
		"duplicate key": {map[string]string{"config.yaml": head + "node: a\nnode: b\n"}, []string{"config.yaml:4:1", "node"}},
		"in a drop-in":  {map[string]string{"config.yaml": head, "config.d/x.yaml": head + "pol: {}\n"}, []string{"x.yaml:3:1", "pol"}},
		"short poll":    {map[string]string{"config.yaml": head + "poll: {interval: 10ms}\n"}, []string{"poll.interval", "1s"}},
		"no node":       {map[string]string{"config.yaml": head + "source: {url: /r}\n"}, []string{"no node id", "GPUAAS_NODE_ID", "--node"}},
		"bad node":      {map[string]string{"config.yaml": head + "node: ../x\nsource: {url: /r}\n"}, []string{"../x", "allowed"}},
		"no source":     {map[string]string{"config.yaml": head + "node: a\n"}, []string{"no source", "--source"}},
		"relative path": {map[string]string{"config.yaml": head + "node: a\nsource: {url: /r}\npaths: {state: var}\n"}, []string{`"var"`, "absolute"}},
		"bad guard":     {map[string]string{"config.yaml": head + "node: a\nsource: {url: /r}\n", "guard.yaml": "apiVersion: fleet.gpuaas.dev/v1\nkind: Guard\nunits: []\n"}, []string{"guard.yaml:3:1", "units"}},
		"other kind":    {map[string]string{"config.yaml": "apiVersion: fleet.gpuaas.dev/v1\nkind: Fleet\n"}, []string{"config.yaml:2", "Fleet", "AgentConfig"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(config.System, write(t, tt.files), env(nil), config.Overrides{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
		})
	}
}

func TestANamedFileMustBeThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "config.yaml")
	over := config.Overrides{Node: "gpu-001", SourceURL: "/r"}
	_, err := config.Load(config.System, missing, env(nil), over)
	if err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file that was named: got %v", err)
	}
}

func TestGuardFileNarrows(t *testing.T) {
	file := write(t, map[string]string{
		"config.yaml": head + "node: a\nsource: {url: /r}\n",
		"guard.yaml":  "apiVersion: " + v1.APIVersion + "\nkind: Guard\nregistries: [registry.example.com]\n",
	})
	cfg, err := config.Load(config.System, file, env(nil), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Guard.Registries) != 1 || len(cfg.Guard.UnitNames) == 0 {
		t.Errorf("%+v", cfg.Guard)
	}
}
