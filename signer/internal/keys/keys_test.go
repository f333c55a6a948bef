package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

func save(t *testing.T, passphrase string) (string, ed25519.PrivateKey) {
	t.Helper()
	key, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tight(t), "fleet.key")
	if err := keys.Save(path, key, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	return path, key
}

func ask(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }

func TestSaveAndLoad(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		path, key := save(t, passphrase)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode is %v", info.Mode())
		}
		got, err := keys.Load(path, ask(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		if !key.Public().(ed25519.PublicKey).Equal(got.Public()) {
			t.Error("another key came back")
		}
		sig, err := got.Sign(rand.Reader, []byte("x"), crypto.Hash(0))
		if err != nil || !ed25519.Verify(key.Public().(ed25519.PublicKey), []byte("x"), sig) {
			t.Errorf("signature is bad: %v", err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	plain, _ := save(t, "")
	locked, _ := save(t, "secret words")
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(ecKey, "")
	if err != nil {
		t.Fatal(err)
	}
	file := func(data []byte, mode os.FileMode) string {
		path := filepath.Join(tight(t), "k")
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, path string
		ask        func() ([]byte, error)
		want       string
	}{
		{"group readable", file(good, 0o640), nil, "chmod 600"},
		{"world readable", file(good, 0o604), nil, "chmod 600"},
		{"group writable", file(good, 0o620), nil, "chmod 600"},
		{"absent", filepath.Join(t.TempDir(), "no"), nil, "no such file"},
		{"a folder", t.TempDir(), nil, "not a regular file"},
		{"not a key", file([]byte("hello"), 0o600), nil, "cannot read key"},
		{"truncated", file(good[:len(good)/2], 0o600), nil, "cannot read key"},
		{"too long", file(bytes.Repeat([]byte("x"), 1<<17), 0o600), nil, "more than"},
		{"another algorithm", file(pem.EncodeToMemory(block), 0o600), nil, "ssh-keygen -t ed25519"},
		{"nobody to ask", locked, nil, "no passphrase"},
		{"wrong passphrase", locked, ask("secret word"), "is the passphrase right"},
		{"asking fails", locked, func() ([]byte, error) { return nil, errors.New("no terminal") }, "no terminal"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := keys.Load(c.path, c.ask)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadRefusesForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		// Only root can give a file away; elsewhere the next best foreign file is one of root's.
		_, err := keys.Load("/etc/hostname", nil)
		if err == nil {
			t.Error("a file of root was accepted")
		}
		return
	}
	path, _ := save(t, "")
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Load(path, nil); err == nil || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("got %v", err)
	}
}

func TestSaveNeverReplaces(t *testing.T) {
	path, key := save(t, "")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Save(path, key, nil); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
}

func TestSet(t *testing.T) {
	roles := []string{"root", "targets", "fleet", "snapshot", "timestamp"}
	set := keys.Set{Dir: filepath.Join(t.TempDir(), "keys"), Passphrase: func(path string) ([]byte, error) {
		if filepath.Ext(path) != ".key" {
			t.Errorf("asked for %s", path)
		}
		return []byte("pw"), nil
	}}
	if err := set.Generate(roles, []byte("pw")); err != nil {
		t.Fatal(err)
	}
	got, err := set.Roles()
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Sorted(slices.Values(roles)); !slices.Equal(got, want) {
		t.Errorf("roles %v, want %v", got, want)
	}
	signers, err := set.Load("fleet", "snapshot", "timestamp")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, list := range signers {
		for _, s := range list {
			id, err := keys.ID(s.Public())
			if err != nil {
				t.Fatal(err)
			}
			ids[id] = true
		}
	}
	if len(signers) != 3 || len(ids) != 3 {
		t.Errorf("%d roles with %d different keys", len(signers), len(ids))
	}
	if err := set.Generate([]string{"other", "root"}, nil); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(set.Path("other")); err == nil {
		t.Error("a refused Generate made a key")
	}
	if _, err := set.Load("absent"); err == nil {
		t.Error("an absent key was loaded")
	}
}

func TestIDRefusesOtherKeys(t *testing.T) {
	for _, k := range []crypto.PublicKey{nil, ed25519.PublicKey("short"), "x"} {
		if _, err := keys.ID(k); err == nil {
			t.Errorf("%T was accepted", k)
		}
	}
}

func TestSeveralKeysOfARole(t *testing.T) {
	set := keys.Set{Dir: filepath.Join(t.TempDir(), "keys")}
	if err := set.Generate([]string{"root-1", "root-2", "root-3", "targets"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := set.List("root", []string{"root-1", "root-2", "root-3"}); err != nil {
		t.Fatal(err)
	}
	if err := set.List("root", []string{"root-1"}); err == nil {
		t.Error("a list was replaced")
	}
	if roles, err := set.Roles(); err != nil || !slices.Equal(roles, []string{"root", "targets"}) {
		t.Errorf("roles %q, %v", roles, err)
	}
	for present := 3; present >= 0; present-- {
		some, err := set.OpenPresent(context.Background(), "root")
		if err != nil || len(some["root"]) != present {
			t.Errorf("%d of %d keys that are there, %v", len(some["root"]), present, err)
		}
		if _, err := set.Open(context.Background(), "root"); (err == nil) != (present == 3) {
			t.Errorf("with %d keys: %v", present, err)
		}
		if present > 0 {
			if err := os.Remove(set.Path(fmt.Sprintf("root-%d", present))); err != nil {
				t.Fatal(err)
			}
		}
	}
}
