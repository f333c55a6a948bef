//go:build !pkcs11 || !cgo

package pkcs11

import (
	"context"
	"crypto/ed25519"
	"errors"
)

var errAbsent = errors.New("this gpuaas-signer was built without PKCS#11; build it with CGO_ENABLED=1 and -tags pkcs11")

// Key is a key in a token; there is none in this build.
type Key struct{}

// Open fails: this build can't speak to tokens.
func Open(context.Context, Config, func() ([]byte, error)) (*Key, error) { return nil, errAbsent }

// Public fails: this build can't speak to tokens.
func Public(context.Context, Config) (ed25519.PublicKey, error) { return nil, errAbsent }

// Public is never called.
func (*Key) Public() ed25519.PublicKey { return nil }

// Sign is never called.
func (*Key) Sign(context.Context, []byte) ([]byte, error) { return nil, errAbsent }

// Close has nothing to do.
func (*Key) Close() error { return nil }
