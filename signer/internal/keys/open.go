package keys

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/pkcs11"
	"github.com/gpuaas/node-agent/signer/internal/keys/internal/sshagent"
	"github.com/gpuaas/node-agent/signer/internal/keys/internal/vault"
)

// Options of Open and Public. The zero value is good for keys that ask for nothing.
type Options struct {
	// Passphrase is asked for the passphrase of an encrypted file; nil: nobody to ask.
	Passphrase func(path string) ([]byte, error)
	// PIN is asked for the PIN of a PKCS#11 token, once; nil: nobody to ask. It isn't Passphrase, since
	// a token locks after a few wrong answers.
	PIN func(uri string) ([]byte, error)
	// Env looks up environment variables; nil is os.Getenv.
	Env func(string) string
	// Timeout is how long opening, and each signature, may take; 0 is DefaultTimeout. It doesn't
	// run while Passphrase is asked for a file's passphrase.
	Timeout time.Duration
}

// DefaultTimeout leaves a person time to touch a hardware key.
const DefaultTimeout = 2 * time.Minute

func (o Options) env(name string) string {
	if o.Env == nil {
		return os.Getenv(name)
	}
	return o.Env(name)
}

// backend is a key in one kind of custody.
type backend interface {
	Public() ed25519.PublicKey
	// Sign returns the plain Ed25519 signature of the message.
	Sign(ctx context.Context, message []byte) ([]byte, error)
	Close() error
}

// Open gets a key to sign with; the package comment lists the URIs. Relative paths
// are relative to the working directory.
//
// The signer is an io.Closer as well, and safe for concurrent use. It signs messages (crypto.Hash(0)),
// not digests. Each signature is verified before it is returned. ctx is also the signer's
// lifetime: when it ends, so do signatures under way, and later ones fail.
func Open(ctx context.Context, uri string, o Options) (crypto.Signer, error) {
	b, err := open(ctx, uri, o)
	if err != nil {
		return nil, fmt.Errorf("cannot open key %s: %w", shown(uri), err)
	}
	public := b.Public()
	if len(public) != ed25519.PublicKeySize {
		return nil, errors.Join(fmt.Errorf("cannot open key %s: its public part is not Ed25519", shown(uri)), b.Close())
	}
	return &custody{ctx: ctx, uri: uri, timeout: cmp.Or(o.Timeout, DefaultTimeout), public: public, backend: b}, nil
}

func open(ctx context.Context, uri string, o Options) (backend, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	scheme, rest, err := parse(uri)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, cmp.Or(o.Timeout, DefaultTimeout))
	defer cancel()
	switch scheme {
	case schemeAgent:
		return asBackend(sshagent.Open(limited, o.env("SSH_AUTH_SOCK"), rest))
	case schemeVault:
		c, err := vault.Parse(uri, o.env)
		if err != nil {
			return nil, err
		}
		return asBackend(vault.Open(limited, c))
	case schemePKCS11:
		c, err := pkcs11.Parse(uri, o.env)
		if err != nil {
			return nil, err
		}
		return asBackend(pkcs11.Open(limited, c, bind(o.PIN, uri)))
	default:
		if isPublic(rest) {
			return nil, errors.New("it is a public key, which can't sign; name the private key")
		}
		key, err := load(rest, bind(o.Passphrase, rest))
		if err != nil {
			return nil, err
		}
		return fileKey{key}, nil
	}
}

// asBackend keeps a nil pointer from becoming an interface that is not nil.
func asBackend[T backend](b T, err error) (backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func bind(ask func(string) ([]byte, error), name string) func() ([]byte, error) {
	if ask == nil {
		return nil
	}
	return func() ([]byte, error) { return ask(name) }
}

// Public reads the public part of a key, without a passphrase or a PIN. The agent and the server
// must be there, and the server wants its token.
func Public(ctx context.Context, uri string, o Options) (ed25519.PublicKey, error) {
	key, err := readPublic(ctx, uri, o)
	if err != nil {
		return nil, fmt.Errorf("cannot read the public part of key %s: %w", shown(uri), err)
	}
	return key, nil
}

func readPublic(ctx context.Context, uri string, o Options) (ed25519.PublicKey, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	scheme, rest, err := parse(uri)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case schemeFile:
		return filePublic(rest)
	case schemePKCS11:
		c, err := pkcs11.Parse(uri, o.env)
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, cmp.Or(o.Timeout, DefaultTimeout))
		defer cancel()
		return pkcs11.Public(limited, c)
	default:
		b, err := open(ctx, uri, o)
		if err != nil {
			return nil, err
		}
		return b.Public(), b.Close()
	}
}

const (
	schemeFile   = "file"
	schemeAgent  = "ssh-agent"
	schemeVault  = "vault"
	schemePKCS11 = "pkcs11"
)

var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)

// parse tells the scheme of a URI, and what follows it: of a file, the path.
func parse(uri string) (kind, rest string, err error) {
	if uri == "" || strings.ContainsRune(uri, 0) {
		return "", "", errors.New("it is not the name of a key")
	}
	found := scheme.FindStringSubmatch(uri)
	if found == nil {
		return schemeFile, uri, nil
	}
	kind, rest = found[1], uri[len(found[0]):]
	switch kind {
	case schemeAgent, schemePKCS11:
		return kind, rest, nil
	case schemeVault:
		if strings.HasPrefix(rest, "//") {
			return kind, rest, nil
		}
		return "", "", errors.New("allowed is vault://MOUNT/KEY")
	case schemeFile:
		path, err := url.PathUnescape(strings.TrimPrefix(rest, "//"))
		if err != nil || !strings.HasPrefix(rest, "///") || !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return "", "", errors.New("allowed is file:///path, or a path and nothing before it")
		}
		return kind, path, nil
	}
	return "", "", fmt.Errorf("%s: is no place for keys; allowed are a path, file:///path, ssh-agent:KEY, vault://MOUNT/KEY, pkcs11:ATTRIBUTES (a path with a colon is written ./%s)", kind, uri)
}

// secretPart is what a URI should not hold, but may.
var secretPart = regexp.MustCompile(`(?i)(pin-value=)[^&;]*`)

// shown is a URI for people to read.
func shown(uri string) string { return secretPart.ReplaceAllString(uri, "${1}...") }

// custody is what every kind of custody has in common.
type custody struct {
	ctx     context.Context // the signer's lifetime: crypto.Signer has no other place for it
	uri     string
	timeout time.Duration
	public  ed25519.PublicKey
	backend backend

	mu     sync.Mutex
	closed bool
}

var errClosed = errors.New("it was closed")

// Public implements crypto.Signer.
func (c *custody) Public() crypto.PublicKey { return c.public }

// Sign implements crypto.Signer. The first argument isn't used: Ed25519 needs no randomness.
func (c *custody) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := c.sign(message, opts)
	if err != nil {
		return nil, fmt.Errorf("cannot sign with key %s: %w", shown(c.uri), err)
	}
	return sig, nil
}

func (c *custody) sign(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != crypto.Hash(0) {
		return nil, errors.New("it signs messages, not digests")
	}
	if o, ok := opts.(*ed25519.Options); ok && o.Context != "" {
		return nil, errors.New("it signs without an Ed25519 context")
	}
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	sig, err := c.backend.Sign(ctx, message)
	if err != nil {
		return nil, err
	}
	// Whatever holds the key may have exchanged it, or be broken.
	if !ed25519.Verify(c.public, message, sig) {
		return nil, errors.New("its signature does not verify: whatever holds the key did not sign this message with it")
	}
	return sig, nil
}

// Close implements io.Closer. More than once does no harm.
func (c *custody) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return c.backend.Close()
}
