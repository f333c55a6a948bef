package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/store"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// patched returns an archive of one entry whose header was changed by hand,
// its checksum set right again.
func patched(t testing.TB, i item, patch func(header []byte)) []byte {
	t.Helper()
	data := archive(t, i)
	h := data[:512]
	patch(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

// named returns an archive with a name that archive/tar wouldn't write.
func named(t testing.TB, i item, name string) []byte {
	return patched(t, i, func(h []byte) {
		clear(h[:100])
		copy(h, name)
	})
}

func withPAX(i item, key, value string) item {
	i.PAXRecords = map[string]string{key: value}
	return i
}

func withMode(i item, mode int64) item {
	i.Mode = mode
	return i
}

// zeros compresses n zero bytes in an archive, to next to nothing.
func zeros(t testing.TB, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: n}); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(chunk)) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileArchives(t *testing.T) {
	ok := file("ok", "fine")
	many := make([]item, 101)
	for i := range many {
		many[i] = file(fmt.Sprintf("f%d", i), "")
	}
	good := archive(t, ok)
	plain := func(items ...item) []byte { return archive(t, items...) }
	for name, tc := range map[string]struct {
		data []byte
		says string
	}{
		"parent":                 {plain(ok, file("../escaped", "x")), "not plain"},
		"parent inside":          {plain(ok, file("a/../../escaped", "x")), "not plain"},
		"parent that stays":      {plain(ok, file("a/../b", "x")), "not plain"},
		"parent folder":          {plain(ok, dir("../escaped/")), "not plain"},
		"dot inside":             {plain(ok, file("a/./b", "x")), "not plain"},
		"two slashes":            {plain(ok, file("a//b", "x")), "not plain"},
		"dot dot only":           {plain(ok, file("..", "x")), "not plain"},
		"absolute":               {plain(ok, file("/tmp/escaped", "x")), "absolute"},
		"absolute after dot":     {plain(ok, file(".//tmp/escaped", "x")), "absolute"},
		"empty name":             {named(t, ok, ""), "not plain"},
		"file named dot":         {named(t, ok, "."), ""},
		"file as a folder":       {named(t, ok, "ok/"), ""},
		"control character":      {plain(file("a\nb", "x")), "control character"},
		"not UTF-8":              {named(t, ok, "a\xff"), "UTF-8"},
		"long path":              {plain(file(strings.Repeat("abcdefgh/", 120)+"x", "x")), "allowed are 1024"},
		"long name":              {plain(file(strings.Repeat("x", 256), "x")), "allowed are 255"},
		"deep":                   {plain(file(strings.Repeat("d/", 64)+"x", "x")), "folders deep"},
		"symlink absolute":       {plain(ok, link("evil", "/etc/passwd")), "absolute"},
		"symlink to parent":      {plain(ok, link("evil", "../x")), "outside"},
		"symlink to deep parent": {plain(ok, link("a/b/evil", "../../../x")), "outside"},
		"symlink to just above":  {plain(ok, link("evil", "..")), "outside"},
		"symlink dangling":       {plain(ok, link("evil", "absent")), "isn't inside"},
		"symlink to itself":      {plain(ok, link("evil", "evil")), "isn't inside"},
		"symlink circle":         {plain(ok, link("a", "b"), link("b", "a")), "isn't inside"},
		"symlink chain":          {plain(file("d/e/f", "x"), link("d/up", "e/.."), link("evil", "d/up/../../x")), "isn't inside"},
		"symlink empty":          {patched(t, link("evil", "x"), func(h []byte) { clear(h[157:257]) }), "no plain path"},
		"write through symlink":  {plain(ok, dir("d"), link("evil", "d"), file("evil/x", "x")), "used as a folder"},
		"write through, later":   {plain(ok, file("evil/x", "x"), link("evil", "/tmp")), "twice"},
		"folder over symlink":    {plain(ok, link("evil", "ok"), dir("evil")), "twice"},
		"symlink over file":      {plain(ok, link("ok", "other"), file("other", "")), "twice"},
		"file over symlink":      {plain(ok, link("evil", "ok"), file("evil", "x")), "twice"},
		"file twice":             {plain(ok, file("ok", "other")), "twice"},
		"file twice, dotted":     {plain(ok, file("./ok", "other")), "twice"},
		"file over folder":       {plain(dir("d"), file("d", "x")), "twice"},
		"folder over file":       {plain(ok, dir("ok")), "twice"},
		"file below file":        {plain(ok, file("ok/x", "x")), "used as a folder"},
		"hard link":              {plain(ok, special(tar.TypeLink, "evil")), "hard link"},
		"hard link outside":      {plain(item{tar.Header{Name: "evil", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}, ""}), "hard link"},
		"character device":       {plain(ok, special(tar.TypeChar, "evil")), "device"},
		"block device":           {plain(ok, special(tar.TypeBlock, "evil")), "device"},
		"named pipe":             {plain(ok, special(tar.TypeFifo, "evil")), "named pipe"},
		"contiguous file":        {patched(t, ok, func(h []byte) { h[156] = tar.TypeCont }), "type"},
		"unknown type":           {patched(t, ok, func(h []byte) { h[156] = 'Z' }), "type"},
		"global header":          {plain(item{tar.Header{Name: "pax", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "evil"}}, ""}, ok), "type"},
		"setuid":                 {plain(withMode(ok, 0o4755)), "setuid"},
		"setgid":                 {plain(withMode(ok, 0o2755)), "setuid"},
		"sticky":                 {plain(withMode(dir("d"), 0o1777)), "setuid"},
		"setgid folder":          {plain(withMode(dir("d"), 0o2755)), "setuid"},
		"capability":             {plain(withPAX(ok, "SCHILY.xattr.security.capability", "\x01")), "attribute"},
		"access list":            {plain(withPAX(ok, "SCHILY.acl.access", "user::rwx")), "attribute"},
		"whiteout":               {plain(ok, file("a/.wh.b", "")), "whiteout"},
		"opaque whiteout":        {plain(ok, file("a/.wh..wh..opq", "")), "whiteout"},
		"link with content":      {patched(t, link("l", "ok"), func(h []byte) { copy(h[124:136], "00000001000\x00") }), ""},
		"nothing":                {plain(), "empty"},
		"only the folder itself": {plain(dir("./")), "empty"},
		"no archive":             {[]byte("this is no tar archive"), "no valid"},
		"cut off":                {plain(file("big", strings.Repeat("x", 5000)))[:2000], "no valid"},
		"wrong checksum":         {append([]byte("x"), good[1:]...), "no valid"},
		"entries after the end":  {append(append([]byte(nil), good...), plain(file("more", "x"))...), "after the end"},
		"garbage after the end":  {append(append([]byte(nil), good...), "garbage"...), "after the end"},
		"too many entries":       {plain(many...), "more than 100 entries"},
		"implied folders count":  {plain(append(many[:99:99], file("a/b/c", ""))...), "more than 100 entries"},
		"huge extended header":   {extended(t, record("comment", strings.Repeat("x", 2<<20)), ok), "no valid"},
		"size that is negative": {patched(t, ok, func(h []byte) {
			copy(h[124:136], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0})
		}), "no valid"},
		"size that is a petabyte": {patched(t, ok, func(h []byte) { copy(h[124:136], []byte{0x80, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0}) }), "no valid"},
		"sparse, old":             {patched(t, ok, func(h []byte) { h[156] = tar.TypeGNUSparse; copy(h[257:265], "ustar  \x00") }), ""},
		"sparse, new":             {sparse(t), ""},
		"unpacks to too much":     {plain(file("big", strings.Repeat("x", 8<<20))), "more than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			s, root := open(t, func(o *store.Options) {
				o.Root = filepath.Join(outside, "packages")
				o.Limits = store.Limits{Entries: 100, Bytes: 4 << 20}
			})
			err := s.Unpack(t.Context(), pkg(name, layer(t, plainTar, tc.data)))
			wantError(t, err, v1.ReasonPackageInvalid, false, tc.says)
			nothingLeft(t, root)
			if got := tree(t, outside); strings.Contains(got, "escaped") {
				t.Errorf("it got out:\n%s", got)
			}
		})
	}
}

// record is one record of a PAX extended header.
func record(key, value string) string {
	kv := key + "=" + value + "\n"
	n := len(kv) + 2
	for n != len(fmt.Sprintf("%d %s", n, kv)) {
		n++
	}
	return fmt.Sprintf("%d %s", n, kv)
}

// extended is an archive of one entry behind an extended header that
// archive/tar wouldn't write.
func extended(t testing.TB, records string, i item) []byte {
	head := patched(t, file("PaxHeaders", records), func(h []byte) { h[156] = tar.TypeXHeader })
	return append(head[:len(head)-1024], archive(t, i)...)
}

// sparse is an archive with a sparse file in the PAX format of GNU tar.
func sparse(t testing.TB) []byte {
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "evil") + record("GNU.sparse.realsize", "1000")
	return extended(t, records, file("GNUSparseFile/evil", "0\n"+strings.Repeat("\x00", 510)))
}

func TestHostileCompression(t *testing.T) {
	data := usual(t)
	packed := gzipped(t, data)
	small := store.Limits{Bytes: 8 << 20}
	for name, tc := range map[string]struct {
		mediaType string
		data      []byte
		limits    store.Limits
		says      string
	}{
		"gzip bomb by ratio": {gzipTar, zeros(t, 200<<20), store.Limits{}, "decompression bomb"},
		"gzip bomb by size":  {gzipTar, zeros(t, 200<<20), small, "more than 8388608 bytes"},
		"bomb after the end": {gzipTar, gzipped(t, append(archive(t, file("x", "")), make([]byte, 200<<20)...)), store.Limits{}, "decompression bomb"},
		"zstd bomb":          {zstdTar, zstded(t, append(archive(t, file("x", "")), make([]byte, 200<<20)...)), store.Limits{}, "decompression bomb"},
		"garbage after gzip": {gzipTar, append(append([]byte(nil), packed...), "garbage"...), store.Limits{}, "no valid"},
		"gzip cut off":       {gzipTar, packed[:len(packed)/2], store.Limits{}, "no valid"},
		"gzip without end":   {gzipTar, packed[:len(packed)-4], store.Limits{}, "no valid"},
		"zstd cut off":       {zstdTar, zstded(t, data)[:100], store.Limits{}, "no valid"},
		"gzip called zstd":   {zstdTar, packed, store.Limits{}, "no valid"},
		"tar called gzip":    {gzipTar, data, store.Limits{}, "no valid"},
		"gzip called tar":    {plainTar, packed, store.Limits{}, "no valid"},
		"empty gzip":         {gzipTar, nil, store.Limits{}, "no valid"},
		"unknown type":       {"application/x-xz", data, store.Limits{}, "media type"},
		"huge window":        {zstdTar, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0, 0}, store.Limits{}, "no valid"},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := open(t, func(o *store.Options) { o.Limits = tc.limits })
			err := s.Unpack(t.Context(), pkg(name, layer(t, tc.mediaType, tc.data)))
			wantError(t, err, v1.ReasonPackageInvalid, false, tc.says)
			nothingLeft(t, root)
		})
	}
}

func TestDamagedBlobIsToldFromABadPackage(t *testing.T) {
	s, root := open(t, nil)
	for _, mediaType := range []string{plainTar, gzipTar} {
		data := usual(t)
		if mediaType == gzipTar {
			data = gzipped(t, data)
		}
		for _, at := range []int{0, len(data) / 3, len(data) - 1} {
			l := layer(t, mediaType, data)
			data := bytes.Clone(data)
			data[at] ^= 0x40
			if err := os.WriteFile(l.Path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			wantError(t, s.Unpack(t.Context(), pkg("x", l)), v1.ReasonDigestMismatch, true, "damaged", "fetched again")
		}
		l := layer(t, mediaType, data)
		l.Size--
		wantError(t, s.Unpack(t.Context(), pkg("x", l)), v1.ReasonDigestMismatch, true)
		l.Size++
		if err := os.Remove(l.Path); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.Unpack(t.Context(), pkg("x", l)), v1.ReasonInternal, true, "no such file")
	}
	nothingLeft(t, root)
}

func TestFullDisk(t *testing.T) {
	big := pkg("big", layer(t, gzipTar, gzipped(t, archive(t, file("a", "x"), file("big", strings.Repeat("x", 4<<20))))))
	t.Run("told before", func(t *testing.T) {
		s, root := open(t, nil)
		p := big
		p.UnpackedSize = 1 << 60
		wantError(t, s.Unpack(t.Context(), p), v1.ReasonNoSpace, true, root, "make room")
		nothingLeft(t, root)
	})
	t.Run("limit on files", func(t *testing.T) {
		executable, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		s, root := open(t, func(o *store.Options) { o.Executable = executable })
		t.Setenv(fileLimitEnv, "1000000")
		wantError(t, s.Unpack(t.Context(), big), v1.ReasonNoSpace, true, "make room")
		nothingLeft(t, root)
	})
	t.Run("small disk", func(t *testing.T) {
		if os.Geteuid() != 0 {
			return // only root may mount; the limit above meets the same code
		}
		disk := t.TempDir()
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
			t.Fatalf("cannot mount a tmpfs to fill: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(disk, 0); err != nil {
				t.Error(err)
			}
		})
		s, root := open(t, func(o *store.Options) { o.Root = filepath.Join(disk, "packages") })
		unpack(t, s, pkg("small", layer(t, plainTar, usual(t))))
		before := tree(t, root)
		wantError(t, s.Unpack(t.Context(), big), v1.ReasonNoSpace, true, "make room")
		if after := tree(t, root); after != before {
			t.Errorf("before\n%safter\n%s", before, after)
		}
		// Making room works on a disk that has none.
		if err := os.WriteFile(filepath.Join(disk, "ballast"), make([]byte, 2<<20), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if err := s.Remove("thing"); err != nil {
			t.Error(err)
		}
		nothingLeft(t, root)
	})
}

// TestKilledInTheMiddle stops the child while it writes: what it leaves is in
// staging, and the next Open removes it.
func TestKilledInTheMiddle(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, root := open(t, func(o *store.Options) { o.Executable = executable })
	// The blob is a pipe that stops flowing.
	data := archive(t, file("a", "x"), file("big", strings.Repeat("x", 4<<20)))
	l := layer(t, plainTar, data)
	p := pkg("x", l)
	if err := errors.Join(os.Rename(l.Path, l.Path+".whole"), unix.Mkfifo(l.Path, 0o600)); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(l.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pipe.Close() }()
	go func() { _, _ = pipe.Write(data[:2<<20]) }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- s.Unpack(ctx, p) }()
	deadline := time.Now().Add(time.Minute)
	for {
		if found, _ := filepath.Glob(filepath.Join(root, ".staging/*/tree/big")); len(found) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never began")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, root)

	if err := errors.Join(os.Remove(l.Path), os.Rename(l.Path+".whole", l.Path)); err != nil {
		t.Fatal(err)
	}
	unpack(t, s, p)
}

func TestRootThatCannotBe(t *testing.T) {
	for _, root := range []string{"/proc/self/packages", "/dev/null/packages"} {
		s, err := store.Open(store.Options{Root: root, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, s.Unpack(t.Context(), pkg("x", layer(t, plainTar, usual(t)))), v1.ReasonInternal, true, root)
	}
}

func TestContextStopsUnpacking(t *testing.T) {
	s, root := open(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	err := s.Unpack(ctx, pkg("x", layer(t, plainTar, usual(t))))
	var e *host.Error
	if !errors.As(err, &e) || !e.Retry || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, root)
}

func TestRunChildRefusesNonsense(t *testing.T) {
	if err := store.RunChild(t.Context(), strings.NewReader("hello"), io.Discard); err == nil {
		t.Error("it was accepted")
	}
}

// FuzzUnpack holds any archive to: refused and nothing left, or unpacked and
// everything below the version, of the kinds and modes that are allowed.
func FuzzUnpack(f *testing.F) {
	f.Add(usual(f))
	f.Add(archive(f, file("../x", "y"), link("l", "/etc")))
	f.Add(sparse(f))
	f.Add(archive(f, link("a", "b"), link("b", "c/../.."), file("c/d", "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, root := open(t, func(o *store.Options) { o.Limits = store.Limits{Entries: 50, Bytes: 1 << 20} })
		p := pkg("fuzz", layer(t, plainTar, data))
		if err := s.Unpack(t.Context(), p); err != nil {
			nothingLeft(t, root)
			return
		}
		if diffs, err := s.Check("thing", p.Digest, true); err != nil || len(diffs) > 0 {
			t.Errorf("%v, %v", diffs, err)
		}
		if err := s.Remove("thing"); err != nil {
			t.Error(err)
		}
		nothingLeft(t, root)
	})
}
