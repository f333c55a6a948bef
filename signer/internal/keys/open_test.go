package keys_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

func TestFilesConform(t *testing.T) {
	dir := tight(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	plain, locked := newKey(t), newKey(t)
	for name, key := range map[string]ed25519.PrivateKey{"a key.key": plain, "locked.key": locked} {
		var passphrase []byte
		if name == "locked.key" {
			passphrase = []byte("correct horse")
		}
		if err := keys.Save(path(name), key, passphrase); err != nil {
			t.Fatal(err)
		}
	}
	wrong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(wrong, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path("rsa.key"), pem.EncodeToMemory(block), 0o600)
	c := custody{
		options: keys.Options{Passphrase: func(p string) ([]byte, error) {
			if p != path("locked.key") {
				t.Errorf("asked for the passphrase of %s", p)
			}
			return []byte("correct horse"), nil
		}},
		good: path("a key.key"), other: path("locked.key"), public: publicOf(plain),
		wrong: path("rsa.key"), missing: path("nobody.key"), absent: "no such file",
	}
	conform(t, c)
	c.good = (&url.URL{Scheme: "file", Path: c.good}).String()
	conform(t, c)
	c.good, c.other, c.public = path("locked.key"), path("a key.key"), publicOf(locked)
	conform(t, c)
}

func TestOpenRefuses(t *testing.T) {
	dir := tight(t)
	public, err := keys.FormatPublic(publicOf(newKey(t)), "alice")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.pub"), []byte(public), 0o644)
	cases := []struct{ name, uri, want string }{
		{"nothing", "", "not the name of a key"},
		{"zero byte", "a\x00b", "not the name of a key"},
		{"unknown scheme", "https://example.com/key", "no place for keys"},
		{"a colon in a path", "a:b.key", "./a:b.key"},
		{"another host", "file://host/key", "file:///path"},
		{"relative", "file:key", "file:///path"},
		{"bad escape", "file:///%zz", "file:///path"},
		{"public key", filepath.Join(dir, "a.pub"), "can't sign"},
		{"PIN in the URI", "pkcs11:object=a?pin-value=123456", "holds a PIN"},
		{"no key in the token", "pkcs11:token=a", "names no key"},
		{"no module", "pkcs11:object=a", "PKCS11_MODULE_PATH"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := keys.Open(t.Context(), c.uri, keys.Options{Env: env(nil)})
			says(t, err, c.want)
			if err != nil && strings.Contains(err.Error(), "123456") {
				t.Errorf("the error holds the PIN: %v", err)
			}
		})
	}
}

func TestLooseFolderIsRefused(t *testing.T) {
	path, _ := save(t, "")
	if err := os.Chmod(filepath.Dir(path), 0o770); err != nil {
		t.Fatal(err)
	}
	_, err := keys.Load(path, nil)
	says(t, err, "the folder of key", "chmod go-w")
	_, err = keys.Public(t.Context(), path, keys.Options{})
	says(t, err, "chmod go-w")
	set := keys.Set{Dir: filepath.Dir(path)}
	_, err = set.Open(t.Context(), "fleet")
	says(t, err, "chmod go-w")
	_, err = set.Roles()
	says(t, err, "chmod go-w")
	says(t, set.Generate([]string{"root"}, nil), "chmod go-w")
}

// TestMadeBySSHKeygen reads what people have: the files of the real tool.
func TestMadeBySSHKeygen(t *testing.T) {
	tool, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("ssh-keygen is missing: install the package openssh-client")
	}
	dir := tight(t)
	for _, passphrase := range []string{"", "correct horse"} {
		path := filepath.Join(dir, "id"+strings.ReplaceAll(passphrase, " ", "-"))
		if out, err := exec.Command(tool, "-q", "-t", "ed25519", "-N", passphrase, "-C", "alice of ops", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		s, err := keys.Open(t.Context(), path, keys.Options{Passphrase: func(string) ([]byte, error) { return []byte(passphrase), nil }})
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		public, comment, err := keys.ParsePublic(line)
		if err != nil || comment != "alice of ops" || !public.Equal(s.Public()) {
			t.Errorf("public key: %x, %q, %v", public, comment, err)
		}
		if back, err := keys.FormatPublic(public, comment); err != nil || back+"\n" != string(line) {
			t.Errorf("got %q, want %q (%v)", back, line, err)
		}
		for _, uri := range []string{path, path + ".pub"} {
			if got, err := keys.Public(t.Context(), uri, keys.Options{}); err != nil || !public.Equal(got) {
				t.Errorf("%s: %x, %v", uri, got, err)
			}
		}
		out, err := exec.Command(tool, "-l", "-f", path+".pub").Output()
		if err != nil {
			t.Fatal(err)
		}
		if print, err := keys.Fingerprint(public); err != nil || !strings.Contains(string(out), " "+print+" ") {
			t.Errorf("fingerprint %s (%v), ssh-keygen says %s", print, err, out)
		}
	}
}

func TestParsePublicRefuses(t *testing.T) {
	good, err := keys.FormatPublic(publicOf(newKey(t)), "a")
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ line, want string }{
		"empty":        {"", "not an OpenSSH public key"},
		"private":      {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "more than one line"},
		"two":          {good + "\n" + good, "more than one line"},
		"options":      {`command="x" ` + good, "not an OpenSSH public key"},
		"other type":   {string(ssh.MarshalAuthorizedKey(other)), "Ed25519"},
		"cut off":      {good[:40], "not an OpenSSH public key"},
		"only comment": {"# " + good, "not an OpenSSH public key"},
	} {
		_, _, err := keys.ParsePublic([]byte(c.line))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestExchangedPublicPart shows that the part that an encrypted file shows in clear isn't believed
// once the private one is known.
func TestExchangedPublicPart(t *testing.T) {
	path, key := save(t, "pw")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	at := strings.Index(string(block.Bytes), string(publicOf(key)))
	if at < 0 {
		t.Fatal("the file shows no public part")
	}
	other := publicOf(newKey(t))
	copy(block.Bytes[at:], other)
	write(t, path, pem.EncodeToMemory(block), 0o600)
	if got, err := keys.Public(t.Context(), path, keys.Options{}); err != nil || !other.Equal(got) {
		t.Fatalf("the test is wrong: %x, %v", got, err)
	}
	_, err = keys.Load(path, ask("pw"))
	says(t, err, "not that of its private part")
}

func TestSetList(t *testing.T) {
	ctx := context.Background()
	dir := tight(t)
	set := keys.Set{Dir: dir, Env: env(nil)}
	if err := set.Generate([]string{"root", "snapshot", "timestamp"}, nil); err != nil {
		t.Fatal(err)
	}
	elsewhere, fleetKey := save(t, "")
	alice := publicOf(newKey(t))
	line, err := keys.FormatPublic(alice, "alice")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "alice.pub"), []byte(line+"\n"), 0o644)
	list := func(roles string) {
		write(t, filepath.Join(dir, keys.ListFile), []byte("apiVersion: fleet.gpuaas.dev/v1\nkind: KeySet\nroles:\n"+roles), 0o644)
	}
	list("  root: [alice.pub, root.key]\n  fleet: [\"" + elsewhere + "\"]\n  targets: [alice.pub]\n")

	for _, dirOrFile := range []string{dir, filepath.Join(dir, keys.ListFile)} {
		set.Dir = dirOrFile
		roles, err := set.Roles()
		if err != nil || strings.Join(roles, " ") != "fleet root snapshot targets timestamp" {
			t.Errorf("roles %v, %v", roles, err)
		}
		public, err := set.Public(ctx, "root")
		if err != nil || len(public) != 2 || !public[0].Equal(alice) {
			t.Errorf("root: %x, %v", public, err)
		}
		signers, err := set.Open(ctx, "root", "fleet", "snapshot", "timestamp")
		if err != nil {
			t.Fatal(err)
		}
		if len(signers["root"]) != 1 || !public[1].Equal(signers["root"][0].Public()) || len(signers["snapshot"]) != 1 {
			t.Errorf("signers %v", signers)
		}
		if !publicOf(fleetKey).Equal(signers["fleet"][0].Public()) {
			t.Error("fleet has another key")
		}
		if err := signers.Close(); err != nil {
			t.Error(err)
		}
		if _, err := signers["fleet"][0].Sign(nil, []byte("x"), nil); err == nil {
			t.Error("a closed key signed")
		}
		_, err = set.Open(ctx, "targets")
		says(t, err, "role targets", "only public keys")
		_, err = set.Open(ctx, "other")
		says(t, err, "role other", "no such file")
	}
	set.Dir = dir
	uris, err := set.URIs("root")
	if err != nil || strings.Join(uris, " ") != filepath.Join(dir, "alice.pub")+" "+filepath.Join(dir, "root.key") {
		t.Errorf("URIs %v, %v", uris, err)
	}

	for name, c := range map[string]struct{ roles, want string }{
		"same key":      {"  root: [root.key, ./root.key]\n", "the same key"},
		"twice":         {"  root: [root.key, root.key]\n", "roles.root[1]"},
		"unknown place": {"  root: [\"gpg:abc\"]\n", "keys.yaml:4:10: roles.root[0]"},
		"empty":         {"  root: []\n", "roles.root"},
		"no list":       {"  root: root.key\n", "roles.root"},
		"no roles":      {"", "roles"},
	} {
		list(c.roles)
		_, err := set.Open(ctx, "root")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	list("  root: [root.key]\n")
	if err := os.Chmod(filepath.Join(dir, keys.ListFile), 0o664); err != nil {
		t.Fatal(err)
	}
	_, err = set.Open(ctx, "root")
	says(t, err, "list of keys", "chmod go-w")
	set.Dir = filepath.Join(dir, "nowhere")
	if _, err = set.Open(ctx, "root"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
