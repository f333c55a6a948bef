package names_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/schema/names"
)

func TestNames(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for _, tt := range []struct {
		name  string
		check func(string) error
		good  []string
		bad   []string
	}{
		{"Label", names.Label,
			[]string{"a", "0", "node-exporter", strings.Repeat("a", 63)},
			[]string{"", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\n", strings.Repeat("a", 64), "../a"}},
		{"NodeID", names.NodeID,
			[]string{"a", "gpu-001", "gpu-001.rack-7.example", "1", "a.", strings.Repeat("a", 63)},
			[]string{"", "-a", ".a", "a..b", "A", "a/b", "a_b", "a\n", "a\x00", strings.Repeat("a", 64)}},
		{"Team", names.Team,
			[]string{"fleet", "a-b", "0", strings.Repeat("a", 40)},
			[]string{"", "root", "targets", "snapshot", "timestamp", "Fleet", "a.b", "-a", "a/b", strings.Repeat("a", 41)}},
		{"TaskID", names.TaskID,
			[]string{"a", "a.b_c-d", "0"},
			[]string{"", "a/b", "package/a", ".a", "a.", "A", "a b", "a\\", strings.Repeat("a", 64)}},
		{"Digest", names.Digest,
			[]string{"sha256:" + hex},
			[]string{"", hex, "sha256:", "sha256:" + hex[1:], "sha256:" + hex + "0", "sha512:" + hex, "sha256:" + strings.ToUpper(hex), "sha256:" + hex + "\n"}},
		{"Commit", names.Commit,
			[]string{hex[:40], hex},
			[]string{"", "abc", hex[:41], "HEAD", strings.ToUpper(hex)}},
		{"Platform", names.Platform,
			[]string{"linux/amd64", "linux/arm64/v8"},
			[]string{"", "linux", "linux/", "Linux/amd64", "linux/amd64/v8/x", "linux /amd64"}},
		{"Mode", names.Mode,
			[]string{"0640", "0000", "0777"},
			[]string{"", "640", "4755", "1777", "0o640", "0888", "00640", "u=rw"}},
		{"Owner", names.Owner,
			[]string{"root", "_apt", "systemd-network", "0", "1000", "4294967294", "a"},
			[]string{"", "Root", "01", "-1", "a b", "a:b", "root\n", "4294967295", "4294967296", "9999999999", strings.Repeat("a", 33)}},
		{"LabelKey", names.LabelKey,
			[]string{"gpu", "topology.example.com/zone", "A_b"},
			[]string{"", "-a", "a b", "a=", strings.Repeat("a", 129)}},
		{"LabelValue", names.LabelValue,
			[]string{"", "true", "A.b_c-d"},
			[]string{"-a", "a b", "a/b", strings.Repeat("a", 64)}},
		{"ValueName", names.ValueName,
			[]string{"a", "_a", "A-1_b"},
			[]string{"", "1a", "a.b", "a}", "-a"}},
		{"EnvName", names.EnvName,
			[]string{"A", "_a", "HTTP_PROXY", "a1"},
			[]string{"", "1A", "A-B", "A B", "A=", "A\n", strings.Repeat("A", 256)}},
		{"AbsolutePath", names.AbsolutePath,
			[]string{"/a", "/etc/gpuaas/x.env", "/a/@b/c+d,e=f~:_-", "/..a/b..", "/etc/..."},
			[]string{"", "/", "a", "/a/", "//a", "/a//b", "/a/../b", "/..", "/a/.", "/a b", "/a\n", "/a\x00", "/a$b", "/a%b", "/a*", "/a\\b", "/ä",
				"/" + strings.Repeat("a", 256), strings.Repeat("/a", 600)}},
		{"RelativePath", names.RelativePath,
			[]string{"a", "systemd/x.service", "...", "a/..b"},
			[]string{"", ".", "..", "../a", "a/../b", "a/..", "/a", "a/", "a//b", "./a", "a b", "a\x00", strings.Repeat("a", 256)}},
		{"Unit", names.Unit,
			[]string{"a.service", "gpuaas-x.timer", "a@.service", "a@b.socket", "a@b@c.target", `dev-a\x2db.path`, "a.b.service", "A:b_c.service"},
			[]string{"", "a", ".service", "a.mount", "a.slice", "a.service.d", "a/b.service", "../a.service", "@a.service", "-a.service", ".a.service", "a b.service",
				"a%i.service", "a.service\n", strings.Repeat("a", 256) + ".service"}},
		{"UnitInstance", names.UnitInstance,
			[]string{"a.service", "a@b.service"},
			[]string{"a@.service", "a", "a@.timer"}},
		{"Branch", names.Branch,
			[]string{"signed", "signed/v1", "a_b.c"},
			[]string{"", "-a", "a..b", "a.lock", "a.lock/b", "/a", "a/", "a//b", "a b", "a~b", "a^", "a:b", "a.", ".a", "a/.b", "@{a"}},
		{"RegistryHost", names.RegistryHost,
			[]string{"registry.example.com", "registry.example.com:5000", "localhost", "localhost:1", "127.0.0.1:5000", "a:80", "[::1]:5000", "[::1]"},
			[]string{"", "registry", "Registry.example.com", "a:", "a:0", "a:080", "a:65536", "a/b", "http://a.b", "-a.b", "a..b", "a_b.c", "[::g]:1", "[:::::]", "user@a.b"}},
		{"Repository", names.Repository,
			[]string{"registry.example.com/a", "localhost:5000/a/b/c", "127.0.0.1:5000/a_b/c__d/e--f/g.h", "[::1]:5000/a"},
			[]string{"", "a", "a/b", "registry.example.com", "registry.example.com/", "registry.example.com/A", "registry.example.com/a:latest",
				"registry.example.com/a@sha256:" + hex, "registry.example.com/a//b", "registry.example.com/a/../b", "registry.example.com/a___b",
				"registry.example.com/-a", "https://registry.example.com/a", "registry.example.com:70000/a", "registry.example.com/" + strings.Repeat("a", 300)}},
		{"HTTPURL", names.HTTPURL,
			[]string{"http://127.0.0.1:9100/metrics", "https://a.b/?x=y&z", "http://[::1]:80/"},
			[]string{"", "a", "ftp://a/", "file:///etc/passwd", "http://", "http:///a", "http://a:b@c/", "http://a/#b", "http://a:0/", "http://a:99999/", "http://a b/",
				"http://a/\n", "http://a\x00/", "http://[::1/", "http:a"}},
		{"TCPAddress", names.TCPAddress,
			[]string{"127.0.0.1:9100", "localhost:1", "[::1]:65535", "a.b-c_d:80"},
			[]string{"", "localhost", ":80", "a:0", "a:65536", "a:http", "::1:80", "a:80:80", "a b:80", "unix:/run/x"}},
		{"RepositoryURL", names.RepositoryURL,
			[]string{"https://git.example.com/fleet.git", "git@git.example.com:fleet.git", "ssh://git@a/b", "/srv/fleet.git", "https://me@a/b"},
			[]string{"", "https://me:secret@a/b", "a b", "a\n", strings.Repeat("a", 2049)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, s := range tt.good {
				if err := tt.check(s); err != nil {
					t.Errorf("%q is refused: %v", s, err)
				}
			}
			for _, s := range tt.bad {
				err := tt.check(s)
				if err == nil {
					t.Errorf("%q is accepted", s)
					continue
				}
				if strings.Contains(err.Error(), "secret") || strings.ContainsAny(err.Error(), "\n\x00") {
					t.Errorf("error for %q shows too much: %v", s, err)
				}
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "[::1]": true,
		"registry.example.com": false, "10.0.0.1:5000": false, "localhost.example.com": false, "": false,
	} {
		if got := names.Loopback(host); got != want {
			t.Errorf("Loopback(%q) = %v", host, got)
		}
	}
}

func TestGrammars(t *testing.T) {
	for name, g := range names.Grammars() {
		if g.Most <= 0 || g.Allowed == "" || !strings.HasPrefix(g.Pattern, "^") || !strings.HasSuffix(g.Pattern, "$") {
			t.Errorf("%s: %+v is not whole", name, g)
		}
		if _, err := regexp.Compile(g.Pattern); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
