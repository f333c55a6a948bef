// Package keys holds signing keys, wherever they are: in a file, in an ssh-agent, in Vault or
// OpenBao, in a PKCS#11 token. To the rest of the signer a key is a
// crypto.Signer over Ed25519, and where it is kept is a URI:
//
//	path, file:///path          OpenSSH private key file, with a passphrase or without
//	path.pub                    OpenSSH public key: somebody else's, that can't sign here
//	ssh-agent:SHA256:...        the key of that fingerprint in the agent of SSH_AUTH_SOCK
//	ssh-agent:comment           the one Ed25519 key of that comment there
//	vault://mount/key?version=2 transit key of the server of VAULT_ADDR
//	pkcs11:token=t;object=k     key in a token (RFC 7512), in builds with the tag pkcs11
//
// Open gives a key to sign with, Public its public part, without what unlocks it. A Set is
// a folder that says which keys sign which role.
//
// Key material is written only to the file asked for, and never into an error; neither are
// tokens, PINs and passphrases.
package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Signers are keys at hand, by the TUF role that they sign for.
type Signers map[string][]crypto.Signer

// Close gives back what the keys hold: sessions, connections. They can't sign afterwards.
func (s Signers) Close() error {
	var errs []error
	for _, list := range s {
		for _, key := range list {
			if c, ok := key.(io.Closer); ok {
				errs = append(errs, c.Close())
			}
		}
	}
	return errors.Join(errs...)
}

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
