package gitpack_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/internal/gitpack"
	"github.com/gpuaas/node-agent/test/harness"
)

var limits = gitpack.Limits{Objects: 1000, Packed: 1 << 20, Inflated: 4 << 20, Object: 1 << 20}

const revisions = 12

// history makes a repository whose packs have chains of deltas, and returns its
// commits.
func history(t *testing.T) (*harness.GitRepo, []string) {
	t.Helper()
	repo := harness.NewGitRepo(t, "r.git")
	var commits []string
	for i := range revisions {
		commits = append(commits, repo.MustCommit(t, harness.GitCommit{Branch: "main", Files: map[string][]byte{
			"big":        []byte(strings.Repeat("line of text\n", 300) + fmt.Sprint(i)),
			"dir/f.yaml": fmt.Appendf(nil, "%d", i),
		}}))
	}
	return repo, commits
}

// packOf lets git pack what revisions name.
func packOf(t *testing.T, repo *harness.GitRepo, revs string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", append([]string{"pack-objects", "--revs", "--stdout", "-q"}, args...)...)
	cmd.Dir, cmd.Stdin = repo.Dir, strings.NewReader(revs+"\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// objects returns what git says the pack holds.
func objects(t *testing.T, repo *harness.GitRepo, revs ...string) map[gitpack.ID]string {
	t.Helper()
	all := map[gitpack.ID]string{}
	for line := range strings.Lines(repo.MustGit(t, append([]string{"rev-list", "--objects", "--no-object-names"}, revs...)...)) {
		id, err := gitpack.ParseID(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		all[id] = repo.MustGit(t, "cat-file", "-t", id.String())
	}
	return all
}

func read(t *testing.T, data []byte, l gitpack.Limits, base gitpack.Base) *gitpack.Pack {
	t.Helper()
	p, err := gitpack.Read(bytes.NewReader(data), in(t.TempDir()), l, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestPacksOfGit(t *testing.T) {
	repo, _ := history(t)
	all := objects(t, repo, "main")
	for name, args := range map[string][]string{
		"offsets":   {"--delta-base-offset"},
		"ids":       nil,
		"no deltas": {"--window=0"},
		"deep":      {"--depth=4000", "--window=50", "--no-reuse-delta"},
	} {
		t.Run(name, func(t *testing.T) {
			p := read(t, packOf(t, repo, "main", args...), limits, nil)
			if p.Len() != len(all) {
				t.Errorf("%d objects, want %d", p.Len(), len(all))
			}
			for id, kind := range all {
				o, ok, err := p.Object(id)
				if err != nil || !ok || o.Type.String() != kind || o.ID() != id {
					t.Fatalf("%s %s: %v, %v", kind, id, ok, err)
				}
			}
			if _, ok, err := p.Object(gitpack.ID{1}); ok || err != nil {
				t.Errorf("an object that isn't there: %v, %v", ok, err)
			}
		})
	}
}

func TestThinPacks(t *testing.T) {
	repo, commits := history(t)
	thin := packOf(t, repo, "main\n^"+commits[revisions/2], "--thin", "--delta-base-offset")
	rest := read(t, packOf(t, repo, commits[revisions/2]), limits, nil)
	base := func(id gitpack.ID) (gitpack.Object, bool) {
		o, ok, err := rest.Object(id)
		if err != nil {
			t.Fatal(err)
		}
		return o, ok
	}
	fresh := objects(t, repo, "main", "^"+commits[revisions/2])
	whole, partial := read(t, thin, limits, base), read(t, thin, limits, nil)
	missing := 0
	for id, kind := range fresh {
		if o, ok, err := whole.Object(id); err != nil || !ok || o.ID() != id {
			t.Errorf("%s %s: %v, %v", kind, id, ok, err)
		}
		o, ok, err := partial.Object(id)
		if err != nil {
			t.Errorf("%s %s without its base: %v", kind, id, err)
		}
		if ok && o.ID() != id {
			t.Errorf("%s %s without its base is another object", kind, id)
		}
		if !ok {
			missing++
		}
	}
	if missing == 0 {
		t.Error("no object needed a base: the test shows nothing")
	}
}

func TestGoesToDiskAndLeavesNothing(t *testing.T) {
	repo := harness.NewGitRepo(t, "r.git")
	noise := make([]byte, 0, 3<<20)
	for sum := sha1.Sum(nil); len(noise) < cap(noise)-sha1.Size; sum = sha1.Sum(sum[:]) {
		noise = append(noise, sum[:]...)
	}
	repo.MustCommit(t, harness.GitCommit{Branch: "main", Files: map[string][]byte{"noise": noise}})
	dir := t.TempDir()
	big := gitpack.Limits{Objects: 10, Packed: 8 << 20, Inflated: 8 << 20, Object: 8 << 20}
	p, err := gitpack.Read(bytes.NewReader(packOf(t, repo, "main")), in(dir), big, nil)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
	blob := gitpack.Object{Type: gitpack.Blob, Data: noise}
	if o, ok, err := p.Object(blob.ID()); err != nil || !ok || !bytes.Equal(o.Data, noise) {
		t.Errorf("%v, %v", ok, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := gitpack.Read(bytes.NewReader(packOf(t, repo, "main")), in(filepath.Join(dir, "not")), big, nil); err == nil {
		t.Error("a folder that doesn't exist took a file")
	}
}

func in(dir string) gitpack.OpenFile {
	return func() (*os.File, error) { return gitpack.NamelessFile(dir) }
}

func TestLimits(t *testing.T) {
	repo, _ := history(t)
	pack := packOf(t, repo, "main", "--delta-base-offset")
	for name, change := range map[string]func(*gitpack.Limits){
		"objects":  func(l *gitpack.Limits) { l.Objects = 10 },
		"packed":   func(l *gitpack.Limits) { l.Packed = 1000 },
		"inflated": func(l *gitpack.Limits) { l.Inflated = 1000 },
	} {
		l := limits
		change(&l)
		if _, err := gitpack.Read(bytes.NewReader(pack), in(t.TempDir()), l, nil); !errors.Is(err, gitpack.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l := limits
	l.Object = 1000 // less than the file "big" has
	p := read(t, pack, l, nil)
	over, small := 0, 0
	for id := range objects(t, repo, "main") {
		switch _, ok, err := p.Object(id); {
		case errors.Is(err, gitpack.ErrLimit), err == nil && !ok:
			over++
		case err != nil:
			t.Errorf("%s: %v", id, err)
		default:
			small++
		}
	}
	if over != revisions || small != 4*revisions {
		t.Errorf("%d objects are over the limit and %d are not", over, small)
	}
}

func TestDamage(t *testing.T) {
	repo, _ := history(t)
	pack := packOf(t, repo, "main")
	for _, n := range []int{0, 1, 11, 12, 13, 20, 100, len(pack) / 2, len(pack) - 21, len(pack) - 1} {
		if _, err := gitpack.Read(bytes.NewReader(pack[:n]), in(t.TempDir()), limits, nil); err == nil {
			t.Errorf("%d of %d bytes were read", n, len(pack))
		}
	}
	for at := 0; at < len(pack); at += 7 {
		damaged := bytes.Clone(pack)
		damaged[at] ^= 0x10
		if _, err := gitpack.Read(bytes.NewReader(damaged), in(t.TempDir()), limits, nil); err == nil {
			t.Errorf("damage at %d was not seen", at)
		}
	}
}

// bomb is a pack of one blob of zeros.
func bomb(size int, declared uint64) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(make([]byte, size))
	_ = w.Close()
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), 1)
	b := byte(gitpack.Blob)<<4 | byte(declared&15)
	for declared >>= 4; declared > 0; declared >>= 7 {
		out = append(out, b|0x80)
		b = byte(declared & 0x7f)
	}
	out = append(append(out, b), z.Bytes()...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

func TestBombs(t *testing.T) {
	const size = 3 << 20
	if _, err := gitpack.Read(bytes.NewReader(bomb(size, size)), in(t.TempDir()), limits, nil); err != nil {
		t.Errorf("an unwanted big object: %v", err)
	}
	p := read(t, bomb(size, size), limits, nil)
	if _, _, err := p.Object(gitpack.Object{Type: gitpack.Blob, Data: make([]byte, size)}.ID()); !errors.Is(err, gitpack.ErrLimit) {
		t.Errorf("a wanted object that is too big: %v", err)
	}
	for _, lie := range []uint64{0, size - 1, size + 1, 1 << 60} {
		if _, err := gitpack.Read(bytes.NewReader(bomb(size, lie)), in(t.TempDir()), limits, nil); err == nil {
			t.Errorf("%d bytes that call themselves %d were taken", size, lie)
		}
	}
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	repo, _ := history(t)
	source := read(t, packOf(t, repo, "main"), limits, nil)
	var kept []gitpack.Object
	for id := range objects(t, repo, "main") {
		o, _, err := source.Object(id)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, o)
	}
	data, err := gitpack.Encode(kept)
	if err != nil {
		t.Fatal(err)
	}
	p := read(t, data, limits, nil)
	if id, first, err := p.First(); err != nil || id != kept[0].ID() || !bytes.Equal(first.Data, kept[0].Data) {
		t.Errorf("the first object is %s, %v", id, err)
	}
	n := 0
	if err := p.All(func(id gitpack.ID, o gitpack.Object) {
		if n++; o.ID() != id {
			t.Errorf("%s is another object", id)
		}
	}); err != nil || n != len(kept) {
		t.Errorf("%d objects, %v", n, err)
	}
	// Git itself takes the pack, and its index for its own.
	path := filepath.Join(t.TempDir(), "x.pack")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := gitpack.NewWriter(f, len(kept), zlib.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range kept {
		if err := w.Add(o, o.ID()); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	repo.MustGit(t, "index-pack", "-o", path+".theirs", path)
	theirs, err := os.ReadFile(path + ".theirs")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Index(sum), theirs) {
		t.Error("the index is not what git makes of the pack")
	}
}

func TestEntries(t *testing.T) {
	id := strings.Repeat("i", 20)
	var got []string
	o := gitpack.Object{Type: gitpack.Tree, Data: []byte("100644 a\x00" + id + "40000 b\x00" + id + "120000 l\x00" + id)}
	err := gitpack.Entries(o, func(e gitpack.Entry) bool {
		got = append(got, fmt.Sprintf("%s %v %v", e.Name, e.IsFile(), e.IsDir()))
		return len(got) < 3
	})
	if err != nil || strings.Join(got, ", ") != "a true false, b false true, l false false" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"100644", "100644 a", "100644 a\x00short", "\x00", " "} {
		if err := gitpack.Entries(gitpack.Object{Type: gitpack.Tree, Data: []byte(bad)}, func(gitpack.Entry) bool { return true }); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if err := gitpack.Entries(gitpack.Object{Type: gitpack.Blob}, nil); err == nil {
		t.Error("a blob has entries")
	}
	if _, err := gitpack.CommitTree(gitpack.Object{Type: gitpack.Commit, Data: []byte("tree xyz\n")}); err == nil {
		t.Error("a commit without a tree was read")
	}
}

func FuzzRead(f *testing.F) {
	data, err := gitpack.Encode([]gitpack.Object{{Type: gitpack.Blob, Data: []byte("a")}, {Type: gitpack.Tree}, {Type: gitpack.Commit, Data: []byte("tree ")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-20])
	f.Add(bomb(10, 10)[:20])
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x02\x31a\x61\x05"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A checksum that fits lets the fuzzer get past it.
		sum := sha1.Sum(data)
		small := gitpack.Limits{Objects: 100, Packed: 1 << 16, Inflated: 1 << 20, Object: 1 << 16}
		p, err := gitpack.Read(bytes.NewReader(append(data[:len(data):len(data)], sum[:]...)), in(t.TempDir()), small, func(id gitpack.ID) (gitpack.Object, bool) {
			return gitpack.Object{Type: gitpack.Blob, Data: id[:]}, id[0]&1 == 0
		})
		if err != nil {
			return
		}
		defer func() { _ = p.Close() }()
		_, _, _ = p.Object(gitpack.ID{})
		_ = p.All(func(id gitpack.ID, o gitpack.Object) {
			if o.ID() != id {
				t.Errorf("%s is another object", id)
			}
		})
	})
}
