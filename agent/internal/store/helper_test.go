package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/store"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const (
	plainTar     = "application/vnd.oci.image.layer.v1.tar"
	gzipTar      = plainTar + "+gzip"
	zstdTar      = plainTar + "+zstd"
	fileLimitEnv = "STORE_TEST_FILE_LIMIT"
)

// TestMain lets the test binary be the child, as the agent's binary is its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == store.ChildCommand {
		if n, err := strconv.ParseUint(os.Getenv(fileLimitEnv), 10, 64); err == nil {
			if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
				panic(err)
			}
		}
		if err := store.RunChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// item is one entry of a test's archive.
type item struct {
	tar.Header
	content string
}

func file(name, content string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}

func program(name, content string) item {
	i := file(name, content)
	i.Mode = 0o700
	return i
}

func dir(name string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o700}, ""}
}

func link(name, target string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
}

func special(kind byte, name string) item {
	return item{tar.Header{Name: name, Typeflag: kind, Linkname: "ok", Mode: 0o644}, ""}
}

func archive(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		if err := w.WriteHeader(&i.Header); err != nil {
			t.Fatalf("%q: %v", i.Name, err)
		}
		if _, err := w.Write([]byte(i.content)); err != nil {
			t.Fatalf("%q: %v", i.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(data, nil)
}

// layer writes a blob and describes it.
func layer(t testing.TB, mediaType string, data []byte) store.Layer {
	t.Helper()
	l := store.Layer{MediaType: mediaType, Path: filepath.Join(t.TempDir(), "blob"), Digest: digest.Of(data), Size: int64(len(data))}
	if err := os.WriteFile(l.Path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// pkg is a package of those layers; its digest is made up, from seed.
func pkg(seed string, layers ...store.Layer) store.Package {
	return store.Package{Name: "thing", Digest: digest.Of([]byte(seed)), Layers: layers}
}

func open(t testing.TB, bend func(*store.Options)) (*store.Store, string) {
	t.Helper()
	o := store.Options{Root: filepath.Join(t.TempDir(), "packages")}
	if bend != nil {
		bend(&o)
	}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, o.Root
}

func unpack(t testing.TB, s *store.Store, p store.Package) {
	t.Helper()
	if err := s.Unpack(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// tree lists what is below dir, one line each, sorted.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%s %s", rel, info.Mode())
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", target)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// nothingLeft checks that a refused package left no trace.
func nothingLeft(t testing.TB, root string) {
	t.Helper()
	if got := tree(t, root); got != ".staging drwx------\n" {
		t.Errorf("left behind:\n%s", got)
	}
}

func wantError(t testing.TB, err error, reason v1.Reason, retry bool, says ...string) {
	t.Helper()
	var e *host.Error
	if !errors.As(err, &e) {
		t.Fatalf("no host.Error: %v", err)
	}
	if e.Reason != reason || e.Retry != retry || e.Component != "store" || e.Element != "package/thing" {
		t.Errorf("got %s, retry %v, of %s %s; want %s, retry %v: %v", e.Reason, e.Retry, e.Component, e.Element, reason, retry, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q doesn't say %q", err, s)
		}
	}
}
