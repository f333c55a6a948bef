package keys_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// custody is one place for keys, set up for the tests that all of them share.
type custody struct {
	options keys.Options
	// good and other are URIs of two Ed25519 keys; public belongs to good.
	good, other string
	public      ed25519.PublicKey
	// wrong is the URI of a key of another type, missing that of none; absent is what an error
	// must say of it.
	wrong, missing, absent string
	// leave takes away what holds the keys, and comeBack brings it back. nil where a key
	// that is open depends on nothing.
	leave, comeBack func(t *testing.T)
}

// conform runs the tests that every custody must pass.
func conform(t *testing.T, c custody) {
	ctx := t.Context()
	open := func(t *testing.T, ctx context.Context, uri string) crypto.Signer {
		t.Helper()
		s, err := keys.Open(ctx, uri, c.options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeKey(t, s) })
		return s
	}
	t.Run("public key", func(t *testing.T) {
		if got := open(t, ctx, c.good).Public(); !c.public.Equal(got) {
			t.Errorf("got %x, want %x", got, c.public)
		}
		locked := c.options
		locked.Passphrase, locked.PIN = nil, nil
		got, err := keys.Public(ctx, c.good, locked)
		if err != nil || !c.public.Equal(got) {
			t.Errorf("without what unlocks it: %x, %v", got, err)
		}
		if c.public.Equal(open(t, ctx, c.other).Public()) {
			t.Error("another key has the same public part")
		}
	})
	t.Run("sign", func(t *testing.T) {
		s := open(t, ctx, c.good)
		for _, message := range [][]byte{nil, {}, []byte("x"), bytes.Repeat([]byte("a"), 200<<10)} {
			sig := mustSign(t, s, message)
			if !ed25519.Verify(c.public, message, sig) {
				t.Errorf("%d bytes: the signature does not verify", len(message))
			}
			if !bytes.Equal(sig, mustSign(t, s, message)) {
				t.Errorf("%d bytes: another signature the second time", len(message))
			}
		}
	})
	t.Run("digests are refused", func(t *testing.T) {
		s := open(t, ctx, c.good)
		short, long := sha256.Sum256(nil), sha512.Sum512(nil)
		for _, try := range []struct {
			digest []byte
			opts   crypto.SignerOpts
		}{{short[:], crypto.SHA256}, {long[:], crypto.SHA512}, {long[:], &ed25519.Options{Hash: crypto.SHA512}}, {nil, &ed25519.Options{Context: "c"}}} {
			if _, err := s.Sign(nil, try.digest, try.opts); err == nil {
				t.Errorf("%+v was signed", try.opts)
			}
		}
	})
	t.Run("at once", func(t *testing.T) {
		s := open(t, ctx, c.good)
		var wg sync.WaitGroup
		for i := range byte(8) {
			wg.Go(func() {
				message := []byte{i}
				sig, err := s.Sign(nil, message, crypto.Hash(0))
				if err != nil || !ed25519.Verify(c.public, message, sig) {
					t.Errorf("signature %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("wrong type", func(t *testing.T) {
		_, err := keys.Open(ctx, c.wrong, c.options)
		says(t, err, "Ed25519")
		_, err = keys.Public(ctx, c.wrong, c.options)
		says(t, err, "Ed25519")
	})
	t.Run("missing", func(t *testing.T) {
		_, err := keys.Open(ctx, c.missing, c.options)
		says(t, err, c.absent)
		_, err = keys.Public(ctx, c.missing, c.options)
		says(t, err, c.absent)
	})
	t.Run("closed", func(t *testing.T) {
		s := open(t, ctx, c.good)
		mustSign(t, s, []byte("x"))
		closeKey(t, s)
		closeKey(t, s)
		_, err := s.Sign(nil, []byte("x"), crypto.Hash(0))
		says(t, err, "closed")
		// The others are not concerned.
		mustSign(t, open(t, ctx, c.good), []byte("x"))
	})
	t.Run("context", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		s := open(t, gone, c.good)
		mustSign(t, s, []byte("x"))
		cancel()
		if _, err := s.Sign(nil, []byte("x"), crypto.Hash(0)); !errors.Is(err, context.Canceled) {
			t.Errorf("signing: %v", err)
		}
		if _, err := keys.Open(gone, c.good, c.options); !errors.Is(err, context.Canceled) {
			t.Errorf("opening: %v", err)
		}
		if _, err := keys.Public(gone, c.good, c.options); !errors.Is(err, context.Canceled) {
			t.Errorf("public key: %v", err)
		}
	})
	if c.leave == nil {
		return
	}
	t.Run("holder goes and comes back", func(t *testing.T) {
		s := open(t, ctx, c.good)
		mustSign(t, s, []byte("x"))
		c.leave(t)
		if _, err := s.Sign(nil, []byte("x"), crypto.Hash(0)); err == nil {
			t.Error("it signed without what holds the key")
		}
		if _, err := keys.Open(ctx, c.good, c.options); err == nil {
			t.Error("it opened without what holds the key")
		}
		c.comeBack(t)
		if sig := mustSign(t, s, []byte("y")); !ed25519.Verify(c.public, []byte("y"), sig) {
			t.Error("the signature does not verify")
		}
	})
}

func mustSign(t *testing.T, s crypto.Signer, message []byte) []byte {
	t.Helper()
	sig, err := s.Sign(nil, message, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func closeKey(t *testing.T, s crypto.Signer) {
	t.Helper()
	c, ok := s.(io.Closer)
	if !ok {
		t.Fatalf("%T is no io.Closer", s)
	}
	if err := c.Close(); err != nil {
		t.Errorf("cannot close: %v", err)
	}
}

// says fails unless err has all of these words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one about %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

// tight is a folder that only this user can write to, whatever the umask.
func tight(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// within fails the test if what hasn't returned after a generous while.
func within(t *testing.T, what func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); what() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}

// env is an environment of these variables only.
func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}
