// Package keys holds signing keys: Ed25519 in OpenSSH private key files, with a
// passphrase or without, one file a key. To the rest of the signer a key is a
// crypto.Signer, so that keys which never leave their hardware fit the same place.
//
// Key material is written only to the file asked for, and never into an error.
package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/gpuaas/node-agent/internal/durable"
)

const maxKeyFile = 64 << 10

// Signers are keys at hand, by the TUF role that they sign for.
type Signers map[string][]crypto.Signer

// Generate makes a new key.
func Generate() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot generate a key: %w", err)
	}
	return key, nil
}

// ID is the TUF key id of a public key: the SHA-256 of its canonical JSON form, in hex.
func ID(public crypto.PublicKey) (string, error) {
	key, ok := public.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return "", fmt.Errorf("cannot use a %T: only Ed25519 keys sign metadata", public)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, `{"keytype":"ed25519","keyval":{"public":"%x"},"scheme":"ed25519"}`, []byte(key)))
	return hex.EncodeToString(sum[:]), nil
}

// Save writes a new key file, mode 0600, encrypted if there is a passphrase. It
// never replaces a file: a key that is overwritten is lost.
func Save(path string, key ed25519.PrivateKey, passphrase []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("cannot save a key to %s: the file exists; move it away first", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot save a key: %w", err)
	}
	comment := filepath.Base(path)
	var (
		block *pem.Block
		err   error
	)
	if len(passphrase) > 0 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, comment, passphrase)
	} else {
		block, err = ssh.MarshalPrivateKey(key, comment)
	}
	if err != nil {
		return fmt.Errorf("cannot encode the key for %s: %w", path, err)
	}
	return durable.WriteFile(path, pem.EncodeToMemory(block), durable.Options{Mode: 0o600})
}

// Load reads a key file. passphrase is asked only if the file is encrypted; nil
// means that there is nobody to ask. A file that others could read, or that belongs to
// somebody else, is refused.
func Load(path string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		raw, err = unlock(path, data, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("cannot use key %s: it is a %T; make one with \"ssh-keygen -t ed25519\" or \"gpuaas-signer init\"", path, raw)
	}
	return *key, nil
}

func unlock(path string, data []byte, passphrase func() ([]byte, error)) (any, error) {
	if passphrase == nil {
		return nil, errors.New("it is encrypted, and there is no passphrase")
	}
	secret, err := passphrase()
	if err != nil {
		return nil, fmt.Errorf("cannot get its passphrase: %w", err)
	}
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(data, secret)
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt it, is the passphrase right? %w", err)
	}
	return raw, nil
}

// readPrivate judges the file that it opened, not the one that has the name a moment later.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("cannot read key %s: it has more than %d bytes", path, maxKeyFile)
	}
	return data, nil
}

func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("cannot use key %s: it is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("cannot use key %s: its mode is %04o, so others can use it; run \"chmod 600 %s\"", path, mode, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use key %s: it belongs to uid %d, and this is uid %d", path, st.Uid, os.Geteuid())
	}
	return nil
}
