package private_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestModes(t *testing.T) {
	cases := []struct {
		name            string
		folder, file    os.FileMode
		secret, trusted string // what is wrong; "" nothing
		executable      string
	}{
		{"tight", 0o700, 0o600, "", "", ""},
		{"read-only", 0o500, 0o400, "", "", ""},
		{"readable folder", 0o755, 0o600, "", "", ""},
		{"readable file", 0o755, 0o644, "chmod 600", "", ""},
		{"group can read", 0o700, 0o640, "chmod 600", "", ""},
		{"group can write", 0o700, 0o620, "chmod 600", "chmod go-w", "chmod go-w"},
		{"folder that a group can write", 0o770, 0o600, "chmod go-w", "chmod go-w", "chmod go-w"},
		{"folder that all can write", 0o777, 0o600, "chmod go-w", "chmod go-w", "chmod go-w"},
		{"sticky folder", 0o777 | os.ModeSticky, 0o600, "chmod go-w", "chmod go-w", "chmod go-w"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			path := file(t, dir, c.file)
			if err := os.Chmod(dir, c.folder); err != nil {
				t.Fatal(err)
			}
			_, err := private.Secret("key", path)
			expect(t, "secret", err, c.secret)
			_, err = private.Trusted("list", path)
			expect(t, "trusted", err, c.trusted)
			expect(t, "executable", private.Executable("module", path), c.executable)
		})
	}
}

func expect(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestSymlinkIntoLooseFolder(t *testing.T) {
	loose := folder(t)
	path := file(t, loose, 0o600)
	if err := os.Chmod(loose, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder(t), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	_, err := private.Secret("key", link)
	expect(t, "link", err, loose)
}

func TestPipeDoesNotBlock(t *testing.T) {
	path := filepath.Join(folder(t), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := private.Secret("key", path)
	expect(t, "pipe", err, "not a regular file")
}

func TestForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		// Only root can give a file away; to others, a file of root is foreign as a secret.
		_, err := private.Secret("key", "/etc/hostname")
		if err == nil {
			t.Error("a file of root was accepted")
		}
		return
	}
	path := file(t, folder(t), 0o600)
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, err := private.Secret("key", path)
	expect(t, "secret", err, "uid 12345")
	_, err = private.Trusted("list", path)
	expect(t, "trusted", err, "uid 12345")

	path = file(t, folder(t), 0o600)
	if err := os.Chown(filepath.Dir(path), 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, err = private.Secret("key", path)
	expect(t, "folder", err, "uid 12345")
}
