package pack

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/gpuaas/node-agent/schema/strict"
)

// The digests of demo's package. If one changes, every package in the
// world gets another digest when it is built again: do that knowingly.
const (
	goldenGzip = "sha256:abf52346569b4909e13a8f5d640941ada872278eb2a6a72ef6e018a8b8813cd0"
	goldenZstd = "sha256:861483f72b64acf7b0da9264ea3709d2a3b21923e449da0a17801bcc96db1906"
)

const manifest = `apiVersion: fleet.gpuaas.dev/v1
kind: PackageSource
name: demo
version: 1.2.3
root: files
platforms:
  linux/amd64: build/linux-amd64
  linux/arm64: build/linux-arm64
entryPoints: [bin/demo]
units: [systemd/demo.service]
`

// write makes files below dir; names that end in "/" are folders, and content
// "-> x" makes a symlink.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for _, name := range sortedKeys(files) {
		p := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(p, 0o777))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(p), 0o777))
		if link, ok := strings.CutPrefix(files[name], "-> "); ok {
			must(t, os.Symlink(link, p))
			continue
		}
		mode := fs.FileMode(0o600)
		if strings.Contains(name, "bin/") {
			mode = 0o700
		}
		must(t, os.WriteFile(p, []byte(files[name]), mode))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func demo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		SourceFile:                            manifest,
		"files/systemd/demo.service":          "[Service]\nExecStart=/bin/demo\n",
		"files/share/current":                 "-> v1/text",
		"files/share/v1/text":                 strings.Repeat("some text that packs well\n", 4000),
		"files/empty/":                        "",
		"build/linux-amd64/bin/demo":          "amd64",
		"build/linux-arm64/bin/demo":          "arm64",
		"build/linux-arm64/bin/" + "ünï code": strings.Repeat("x", 200),
	})
	return dir
}

func TestBuildIsReproducible(t *testing.T) {
	for _, tc := range []struct {
		compression Compression
		golden      string
	}{{Gzip, goldenGzip}, {Zstd, goldenZstd}} {
		t.Run(string(tc.compression), func(t *testing.T) {
			first, second := demo(t), demo(t)
			// What a machine adds must not count: times, modes beyond executable, order.
			must(t, os.Chtimes(filepath.Join(second, "files/share/v1/text"), time.Now(), time.Unix(12345, 0)))
			must(t, os.Chmod(filepath.Join(second, "build/linux-amd64/bin/demo"), 0o755))
			must(t, os.Chmod(filepath.Join(second, "files/share/v1/text"), 0o644))
			for _, dir := range []string{first, second} {
				info, err := Build(dir, filepath.Join(t.TempDir(), "out"), BuildOptions{Compression: tc.compression})
				must(t, err)
				if info.Digest != tc.golden {
					t.Errorf("digest is %s, golden is %s", info.Digest, tc.golden)
				}
			}
		})
	}
}

func TestBuildReplacesLayoutOnly(t *testing.T) {
	dir := demo(t)
	out := filepath.Join(t.TempDir(), "out")
	a, err := Build(dir, out, BuildOptions{})
	must(t, err)
	b, err := Build(dir, out, BuildOptions{Time: time.Unix(1700000000, 0)})
	must(t, err)
	if a.Digest == b.Digest {
		t.Error("SOURCE_DATE_EPOCH has no effect")
	}
	other := t.TempDir()
	write(t, other, map[string]string{"precious": "x"})
	if _, err := Build(dir, other, BuildOptions{}); err == nil {
		t.Error("a folder with other files was replaced")
	}
	if _, err := os.Stat(filepath.Join(other, "precious")); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Dir(out))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("something was left beside the layout: %v", entries)
	}
}

func TestLayout(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	info, err := Build(demo(t), out, BuildOptions{})
	must(t, err)
	if got, want := info.PlatformNames(), []string{"linux/amd64", "linux/arm64"}; !slices.Equal(got, want) {
		t.Errorf("platforms are %v, want %v", got, want)
	}
	idx, err := layout.ImageIndexFromPath(out)
	must(t, err)
	must(t, validate.Index(idx, validate.Fast))
	hash, err := oci.NewHash(info.Platforms[1].Digest)
	must(t, err)
	top, err := oci.NewHash(info.Digest)
	must(t, err)
	inner, err := idx.ImageIndex(top)
	must(t, err)
	img, err := inner.Image(hash)
	must(t, err)
	layers, err := img.Layers()
	must(t, err)
	r, err := layers[0].Uncompressed()
	must(t, err)
	defer func() { _ = r.Close() }()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s carries the machine's owner or time", h.Name)
		}
		names = append(names, h.Name+" "+fs.FileMode(h.Mode).String())
	}
	want := []string{
		"bin/ -rwxr-xr-x", "bin/demo -rwxr-xr-x", "bin/ünï code -rwxr-xr-x", "empty/ -rwxr-xr-x",
		"share/ -rwxr-xr-x", "share/current -rwxrwxrwx", "share/v1/ -rwxr-xr-x", "share/v1/text -rw-r--r--",
		"systemd/ -rwxr-xr-x", "systemd/demo.service -rw-r--r--",
	}
	if !slices.Equal(names, want) {
		t.Errorf("entries are\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	raw, err := img.RawConfigFile()
	must(t, err)
	var c Config
	must(t, json.Unmarshal(raw, &c))
	if c.OS != "linux" || c.Architecture != "arm64" || c.Entries != len(want) || len(c.DiffIDs) != 1 {
		t.Errorf("config is %s", raw)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"absolute symlink", link("/etc/passwd"), "absolute path"},
		{"escaping symlink", link("../../package.yaml"), "outside the package"},
		{"escape through a symlink", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/a/b/c/": "", "files/deep": "-> a/b/c", "files/bad": "-> deep/../../../../package.yaml"})
		}, "outside the package"},
		{"dangling symlink", link("nowhere"), "not inside the same folder"},
		{"named pipe", func(t *testing.T, dir string) {
			must(t, syscall.Mkfifo(filepath.Join(dir, "files/bad"), 0o600))
		}, "named pipe"},
		{"socket", func(t *testing.T, dir string) {
			t.Chdir(dir)
			l, err := net.Listen("unix", "files/bad")
			must(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}, "socket"},
		{"setuid", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/bad": ""})
			must(t, os.Chmod(filepath.Join(dir, "files/bad"), 0o755|fs.ModeSetuid))
		}, "setuid"},
		{"setgid", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/bad": ""})
			must(t, os.Chmod(filepath.Join(dir, "files/bad"), 0o755|fs.ModeSetgid))
		}, "setgid"},
		{"control character", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/a\nb": ""})
		}, "control character"},
		{"not UTF-8", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/a\xff": ""})
		}, "UTF-8"},
		{"twice the same file", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"files/bin/demo": ""})
		}, "not from both"},
		{"folder missing", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, "build/linux-arm64")))
		}, "was it built?"},
		{"folder is a symlink out", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, "build/linux-arm64")))
			must(t, os.Symlink("/etc", filepath.Join(dir, "build/linux-arm64")))
		}, "cannot open"},
		{"entry point missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "build/linux-arm64/bin/demo")))
		}, "platform linux/arm64 has no file bin/demo"},
		{"entry point not executable", func(t *testing.T, dir string) {
			must(t, os.Chmod(filepath.Join(dir, "build/linux-arm64/bin/demo"), 0o644))
		}, "isn't executable"},
		{"unit missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "files/systemd/demo.service")))
		}, "no file systemd/demo.service"},
		{"no package.yaml", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, SourceFile)))
		}, "package.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, parent := demo(t), t.TempDir()
			tc.change(t, dir)
			_, err := Build(dir, filepath.Join(parent, "out"), BuildOptions{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
			entries, rerr := os.ReadDir(parent)
			must(t, rerr)
			if len(entries) != 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

func link(target string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { must(t, os.Symlink(target, filepath.Join(dir, "files/bad"))) }
}

func TestSourceErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{SourceFile: `apiVersion: fleet.gpuaas.dev/v2
kind: PackageSource
name: Demo
version: "1 2"
root: ../up
platforms:
  linux: /abs
units: [bin/x]
color: red
`})
	_, err := Build(dir, filepath.Join(t.TempDir(), "out"), BuildOptions{})
	var errs strict.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{"apiVersion", "name", "version", "root", "platforms", "units[0]", "color"} {
		if !slices.ContainsFunc(errs, func(e *strict.Error) bool { return e.Field == want && e.Line > 0 }) {
			t.Errorf("no error about %s in\n%v", want, err)
		}
	}
}
