// Package sshagent signs with an Ed25519 key that a running ssh-agent holds, and
// through it with keys in hardware that the agent can speak to. The key never leaves it.
//
// An agent signs what it is given: the signature is plain Ed25519 over the message
// (draft-ietf-sshm-ssh-agent, RFC 8709). Keys that sign something else than the
// message, as FIDO keys (sk-ssh-ed25519) do, are refused.
package sshagent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxMessage is what OpenSSH's agent takes in one request, with room for the key.
const maxMessage = 256<<10 - 1<<10

// Key is one key of an agent. It holds no connection: each use makes its own, so that an
// agent may be restarted in between. Safe for concurrent use.
type Key struct {
	socket string
	public ssh.PublicKey
	raw    ed25519.PublicKey
}

// Open finds a key in the agent that listens at socket. selector is the key's
// fingerprint, "SHA256:...", or its comment, of which exactly one Ed25519 key must have it.
func Open(ctx context.Context, socket, selector string) (*Key, error) {
	if selector == "" {
		return nil, errors.New("it names no key; write ssh-agent: and the SHA256: fingerprint or the comment that \"ssh-add -l\" shows")
	}
	if socket == "" {
		return nil, errors.New("there is no ssh-agent: SSH_AUTH_SOCK is not set; start one with \"eval $(ssh-agent)\" and add the key with \"ssh-add\"")
	}
	var held []*agent.Key
	err := ask(ctx, socket, func(c agent.ExtendedAgent) (err error) {
		held, err = c.List()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys of ssh-agent: %w", err)
	}
	found, err := choose(held, selector)
	if err != nil {
		return nil, err
	}
	public, err := ssh.ParsePublicKey(found.Blob)
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s of ssh-agent: %w", selector, err)
	}
	raw, ok := raw(public)
	if !ok {
		return nil, fmt.Errorf("cannot use key %s of ssh-agent: it is not Ed25519", selector)
	}
	return &Key{socket: socket, public: public, raw: raw}, nil
}

func raw(public ssh.PublicKey) (ed25519.PublicKey, bool) {
	if public.Type() != ssh.KeyAlgoED25519 {
		return nil, false
	}
	c, ok := public.(ssh.CryptoPublicKey)
	if !ok {
		return nil, false
	}
	key, ok := c.CryptoPublicKey().(ed25519.PublicKey)
	return key, ok && len(key) == ed25519.PublicKeySize
}

// choose finds the one key that the selector means.
func choose(held []*agent.Key, selector string) (*agent.Key, error) {
	var fit, other []*agent.Key
	for _, k := range held {
		// A certificate has its key's comment, and no fingerprint of its own.
		if selector != k.Comment && (!strings.HasPrefix(selector, "SHA256:") || ssh.FingerprintSHA256(k) != selector) {
			continue
		}
		if k.Format == ssh.KeyAlgoED25519 {
			fit = append(fit, k)
		} else {
			other = append(other, k)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return nil, fmt.Errorf("ssh-agent has %d keys with the comment %q; name one by its SHA256: fingerprint, which \"ssh-add -l\" shows", len(fit), selector)
	case len(other) > 0:
		return nil, fmt.Errorf("cannot use key %s of ssh-agent: it is of type %s; only Ed25519 keys (%s) sign metadata", selector, other[0].Format, ssh.KeyAlgoED25519)
	case len(held) == 0:
		return nil, fmt.Errorf("ssh-agent has no key %s; it shows no keys at all: add it with \"ssh-add\", or unlock the agent with \"ssh-add -X\"", selector)
	default:
		return nil, fmt.Errorf("ssh-agent has no key %s among its %d; add it with \"ssh-add\"", selector, len(held))
	}
}

// Public is the key's public part.
func (k *Key) Public() ed25519.PublicKey { return k.raw }

// Sign has the agent sign the message. The agent may ask its user first.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	var sig *ssh.Signature
	err := ask(ctx, k.socket, func(c agent.ExtendedAgent) (err error) {
		sig, err = c.SignWithFlags(k.public, message, 0)
		return err
	})
	switch {
	case err != nil && len(message) > maxMessage:
		return nil, fmt.Errorf("ssh-agent did not sign %d bytes (OpenSSH's takes at most %d): %w", len(message), maxMessage, err)
	case err != nil:
		return nil, fmt.Errorf("ssh-agent did not sign; is the key still there (\"ssh-add -l\"), and was its use confirmed? %w", err)
	case sig.Format != ssh.KeyAlgoED25519:
		return nil, fmt.Errorf("ssh-agent gave a signature of type %q, not %s", sig.Format, ssh.KeyAlgoED25519)
	}
	return sig.Blob, nil
}

// Close has nothing to do.
func (*Key) Close() error { return nil }

// ask speaks to the agent until ctx ends.
func ask(ctx context.Context, socket string, what func(agent.ExtendedAgent) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("cannot reach it: %w", err)
	}
	defer conn.Close()
	// The past ends every read and write.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := what(agent.NewClient(conn)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}
