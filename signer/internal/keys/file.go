package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/gpuaas/node-agent/internal/durable"
	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

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
// somebody else, is refused, and so is one in a folder that others can write to.
func Load(path string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	key, err := load(path, passphrase)
	if err != nil {
		return nil, err // not a nil key in an interface that is not nil
	}
	return key, nil
}

func load(path string, passphrase func() ([]byte, error)) (ed25519.PrivateKey, error) {
	data, err := private.Secret("key", path)
	if err != nil {
		return nil, err
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		raw, err = unlock(data, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	key, err := ed25519Key(path, raw)
	if err != nil {
		return nil, err
	}
	// A file whose halves don't belong together would sign what nobody can verify.
	derived := ed25519.NewKeyFromSeed(key.Seed())
	if !derived.Equal(key) || locked != nil && locked.PublicKey != nil && !sameKey(locked.PublicKey, derived) {
		return nil, fmt.Errorf("cannot use key %s: its public part is not that of its private part", path)
	}
	return derived, nil
}

func unlock(data []byte, passphrase func() ([]byte, error)) (any, error) {
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

// ed25519Key takes the two forms that the parser gives: OpenSSH's and PKCS#8's.
func ed25519Key(path string, raw any) (ed25519.PrivateKey, error) {
	switch key := raw.(type) {
	case *ed25519.PrivateKey:
		return *key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("cannot use key %s: it is a %T, not Ed25519; make one with \"ssh-keygen -t ed25519\" or \"gpuaas-signer init\"", path, raw)
}

func sameKey(public ssh.PublicKey, key ed25519.PrivateKey) bool {
	mine, err := ssh.NewPublicKey(key.Public())
	return err == nil && bytes.Equal(public.Marshal(), mine.Marshal())
}

// filePublic reads the public part of a key file: a .pub file's, or that which a private
// key in OpenSSH's format shows even when it is encrypted.
func filePublic(path string) (ed25519.PublicKey, error) {
	if isPublic(path) {
		data, err := private.Trusted("public key", path)
		if err != nil {
			return nil, err
		}
		key, _, err := ParsePublic(data)
		if err != nil {
			return nil, fmt.Errorf("cannot use public key %s: %w", path, err)
		}
		return key, nil
	}
	data, err := private.Secret("key", path)
	if err != nil {
		return nil, err
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if locked.PublicKey == nil {
			return nil, fmt.Errorf("cannot read the public part of key %s without its passphrase: it is not in OpenSSH's format", path)
		}
		key, err := plain(locked.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("cannot use key %s: %w", path, err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	key, err := ed25519Key(path, raw)
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil
}

const publicSuffix = ".pub"

func isPublic(path string) bool { return strings.HasSuffix(path, publicSuffix) }

// ParsePublic reads the one line of an OpenSSH public key: "ssh-ed25519 AAAA... comment".
func ParsePublic(data []byte) (key ed25519.PublicKey, comment string, err error) {
	line := strings.TrimSpace(string(data))
	if strings.ContainsAny(line, "\r\n") {
		return nil, "", errors.New("it has more than one line; allowed is one key, \"ssh-ed25519 AAAA... comment\"")
	}
	public, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 {
		return nil, "", errors.New("it is not an OpenSSH public key, \"ssh-ed25519 AAAA... comment\"")
	}
	key, err = plain(public)
	return key, comment, err
}

// FormatPublic is the line that ParsePublic reads, without a newline: what people
// hand to whoever sets up a role.
func FormatPublic(key ed25519.PublicKey, comment string) (string, error) {
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("cannot write a public key: %w", err)
	}
	return strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + comment), nil
}

// Fingerprint is what "ssh-keygen -l" and "ssh-add -l" show of a key, "SHA256:...".
func Fingerprint(key ed25519.PublicKey) (string, error) {
	public, err := ssh.NewPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("cannot tell a fingerprint: %w", err)
	}
	return ssh.FingerprintSHA256(public), nil
}

func plain(public ssh.PublicKey) (ed25519.PublicKey, error) {
	if public.Type() == ssh.KeyAlgoED25519 {
		if c, ok := public.(ssh.CryptoPublicKey); ok {
			if key, ok := c.CryptoPublicKey().(ed25519.PublicKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("it is of type %s; only Ed25519 keys (%s) sign metadata", public.Type(), ssh.KeyAlgoED25519)
}

// fileKey is a key that was read from a file.
type fileKey struct{ key ed25519.PrivateKey }

func (f fileKey) Public() ed25519.PublicKey { return f.key.Public().(ed25519.PublicKey) }

func (f fileKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(f.key, message), nil
}

func (fileKey) Close() error { return nil }
