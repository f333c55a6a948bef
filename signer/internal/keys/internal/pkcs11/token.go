//go:build pkcs11 && cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

// What PKCS#11 3.0 added for Edwards curves, and the binding doesn't name.
const (
	ckkECEdwards = 0x00000040
	ckmEdDSA     = 0x00001057
)

// Key is a key in a token. Safe for concurrent use; a token signs one message at a time.
type Key struct {
	c      Config
	pin    func() ([]byte, error)
	public ed25519.PublicKey

	mu sync.Mutex
	s  *session // nil when it was lost
}

// Open finds the key and logs in. pin is asked where the token wants a PIN and the URI
// has no pin-source; nil means that there is nobody to ask.
//
// A library can't be interrupted: when ctx ends first, Open and Sign return, and
// what they began ends when the token answers.
func Open(ctx context.Context, c Config, pin func() ([]byte, error)) (*Key, error) {
	return interruptible(ctx, func() (*Key, error) {
		k := &Key{c: c, pin: pin}
		k.mu.Lock()
		defer k.mu.Unlock()
		if err := k.open(); err != nil {
			return nil, err
		}
		return k, nil
	}, func(k *Key) { _ = k.Close() })
}

// Public reads the key's public part, without logging in.
func Public(ctx context.Context, c Config) (ed25519.PublicKey, error) {
	return interruptible(ctx, func() (ed25519.PublicKey, error) {
		s, err := begin(c)
		if err != nil {
			return nil, err
		}
		defer s.end()
		return s.public(c)
	}, func(ed25519.PublicKey) {})
}

// Public is the key's public part.
func (k *Key) Public() ed25519.PublicKey { return k.public }

// Sign has the token sign the message: plain Ed25519, nothing hashed before.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	return interruptible(ctx, func() ([]byte, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		fresh := k.s == nil
		if fresh {
			if err := k.open(); err != nil {
				return nil, err
			}
		}
		sig, err := k.s.sign(message)
		if err != nil && !fresh && lost(err) {
			// The token was taken out and put back, or another user of the library ended the session.
			if err := k.open(); err != nil {
				return nil, err
			}
			sig, err = k.s.sign(message)
		}
		if err != nil {
			return nil, fmt.Errorf("the token did not sign with key %s: %w", k.c.key(), err)
		}
		return sig, nil
	}, func([]byte) {})
}

// Close ends the session, and with the last one of a token its login.
func (k *Key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.s != nil {
		k.s.end()
		k.s = nil
	}
	return nil
}

// open makes a session that can sign. k.mu is held.
func (k *Key) open() error {
	if k.s != nil {
		k.s.end()
		k.s = nil
	}
	s, err := begin(k.c)
	if err != nil {
		return err
	}
	if err := k.prepare(s); err != nil {
		s.end()
		return err
	}
	k.s = s
	return nil
}

func (k *Key) prepare(s *session) error {
	if err := s.login(k.c, k.pin); err != nil {
		return err
	}
	var err error
	if s.key, err = s.find(pkcs11.CKO_PRIVATE_KEY, k.c); err != nil {
		return err
	}
	public, err := s.public(k.c)
	if err != nil {
		return err
	}
	if k.public != nil && !k.public.Equal(public) {
		return fmt.Errorf("key %s of %s is not the one that it was before", k.c.key(), k.c.describe())
	}
	k.public = public
	return nil
}

// interruptible runs a call into the library, and stops waiting for it when ctx ends.
func interruptible[T any](ctx context.Context, call func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	done := make(chan result, 1)
	go func() {
		v, err := call()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				drop(r.value)
			}
		}()
		return zero, fmt.Errorf("the token has not answered: %w", context.Cause(ctx))
	}
}

// lost tells whether a new session may help.
func lost(err error) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return false
	}
	switch uint(code) {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID:
		return true
	}
	return false
}

// session is a session with the one token that fits.
type session struct {
	lib    *pkcs11.Ctx
	handle pkcs11.SessionHandle
	token  pkcs11.TokenInfo
	key    pkcs11.ObjectHandle
}

// begin loads the module and opens a session. The library's state is the process's, and
// others in it may use the same, so it is never finalized nor unloaded.
func begin(c Config) (*session, error) {
	if err := private.Executable("PKCS#11 module", c.Module); err != nil {
		return nil, err
	}
	lib := pkcs11.New(c.Module)
	if lib == nil {
		return nil, fmt.Errorf("cannot load the PKCS#11 module %s: is it a PKCS#11 library of this machine's architecture?", c.Module)
	}
	if err := lib.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil, fmt.Errorf("cannot initialize the PKCS#11 module %s: %w", c.Module, err)
	}
	slot, token, err := findToken(lib, c)
	if err != nil {
		return nil, err
	}
	handle, err := lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, fmt.Errorf("cannot open a session with %s: %w", c.describe(), err)
	}
	return &session{lib: lib, handle: handle, token: token}, nil
}

func findToken(lib *pkcs11.Ctx, c Config) (uint, pkcs11.TokenInfo, error) {
	slots, err := lib.GetSlotList(true)
	if err != nil {
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("cannot list the tokens of %s: %w", c.Module, err)
	}
	var fit []uint
	var found pkcs11.TokenInfo
	for _, slot := range slots {
		info, err := lib.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // not a token to use, and maybe not the one that is meant
		}
		if c.fits(slot, info) {
			fit, found = append(fit, slot), info
		}
	}
	switch len(fit) {
	case 0:
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("%s has no token that fits the URI (%s) in its %d slots", c.Module, c.describe(), len(slots))
	case 1:
		return fit[0], found, nil
	default:
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("%d tokens of %s fit the URI (%s); add token=, serial= or slot-id=", len(fit), c.Module, c.describe())
	}
}

func (c Config) fits(slot uint, t pkcs11.TokenInfo) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return (!c.HasSlot || c.Slot == slot) && same(c.Token, t.Label) && same(c.Serial, t.SerialNumber) &&
		same(c.Manufacturer, t.ManufacturerID) && same(c.Model, t.Model)
}

// login logs in, unless that was done before, by another key of the token. It never
// tries a PIN twice: tokens lock after a few wrong ones.
func (s *session) login(c Config, ask func() ([]byte, error)) error {
	if s.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	info, err := s.lib.GetSessionInfo(s.handle)
	if err != nil {
		return fmt.Errorf("cannot ask %s for its state: %w", c.describe(), err)
	}
	if info.State == pkcs11.CKS_RO_USER_FUNCTIONS || info.State == pkcs11.CKS_RW_USER_FUNCTIONS {
		return nil
	}
	pin, err := c.findPIN(s.token, ask)
	if err != nil {
		return err
	}
	defer clear(pin)
	err = s.lib.Login(s.handle, pkcs11.CKU_USER, string(pin))
	switch {
	case err == nil, errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)):
		return nil
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)):
		return fmt.Errorf("the PIN is not that of %s; a few more wrong ones lock it: %w", c.describe(), err)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_LOCKED)):
		return fmt.Errorf("%s is locked after too many wrong PINs; its security officer can unlock it: %w", c.describe(), err)
	default:
		return fmt.Errorf("cannot log in to %s: %w", c.describe(), err)
	}
}

// findPIN returns the PIN, in memory of its own.
func (c Config) findPIN(t pkcs11.TokenInfo, ask func() ([]byte, error)) ([]byte, error) {
	if t.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return nil, nil // it has a keypad
	}
	if c.PINSource != "" {
		data, err := private.Secret("PIN file", c.PINSource)
		if err != nil {
			return nil, err
		}
		return bytes.TrimRight(data, "\r\n"), nil
	}
	if ask == nil {
		return nil, fmt.Errorf("%s wants a PIN, and there is nobody to ask; give a file as pin-source=file:/path", c.describe())
	}
	pin, err := ask()
	if err != nil {
		return nil, fmt.Errorf("cannot get the PIN of %s: %w", c.describe(), err)
	}
	return bytes.Clone(pin), nil
}

// find finds the one object of a class that fits the URI, and has the right type.
func (s *session) find(class uint, c Config) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if c.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, c.Object))
	}
	if len(c.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, c.ID))
	}
	if err := s.lib.FindObjectsInit(s.handle, template); err != nil {
		return 0, fmt.Errorf("cannot look for key %s: %w", c.key(), err)
	}
	found, _, err := s.lib.FindObjects(s.handle, 2)
	if err := errors.Join(err, s.lib.FindObjectsFinal(s.handle)); err != nil {
		return 0, fmt.Errorf("cannot look for key %s: %w", c.key(), err)
	}
	switch {
	case len(found) == 0 && class == pkcs11.CKO_PUBLIC_KEY:
		return 0, fmt.Errorf("there is no public key %s in %s", c.key(), c.describe())
	case len(found) == 0:
		return 0, fmt.Errorf("there is no private key %s in %s", c.key(), c.describe())
	case len(found) > 1:
		return 0, fmt.Errorf("several keys %s are in %s; add object= or id= to the URI", c.key(), c.describe())
	}
	attrs, err := s.lib.GetAttributeValue(s.handle, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil)})
	if err != nil {
		return 0, fmt.Errorf("cannot read the type of key %s: %w", c.key(), err)
	}
	want := pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, uint(ckkECEdwards)).Value
	if len(attrs) != 1 || !bytes.Equal(attrs[0].Value, want) {
		return 0, fmt.Errorf("cannot use key %s of %s: it is not of type CKK_EC_EDWARDS; only Ed25519 keys sign metadata", c.key(), c.describe())
	}
	return found[0], nil
}

// public reads the public key from its own object, or else from the private key's, which
// has it in some tokens.
func (s *session) public(c Config) (ed25519.PublicKey, error) {
	object, noPublic := s.find(pkcs11.CKO_PUBLIC_KEY, c)
	if noPublic != nil {
		if s.key == 0 {
			return nil, noPublic
		}
		object = s.key
	}
	attrs, err := s.lib.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		if noPublic != nil {
			err = noPublic
		}
		return nil, fmt.Errorf("cannot read the public part of key %s: %w", c.key(), err)
	}
	var point []byte
	if len(attrs) == 1 {
		point = attrs[0].Value
	}
	// A DER OCTET STRING in PKCS#11 3.0, the bare point in 3.1.
	if len(point) == 2+ed25519.PublicKeySize && point[0] == 0x04 && point[1] == ed25519.PublicKeySize {
		point = point[2:]
	}
	if len(point) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("cannot use key %s of %s: its point has %d bytes; only Ed25519 keys sign metadata", c.key(), c.describe(), len(point))
	}
	return bytes.Clone(point), nil
}

func (s *session) sign(message []byte) ([]byte, error) {
	if err := s.lib.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmEdDSA, nil)}, s.key); err != nil {
		return nil, err
	}
	return s.lib.Sign(s.handle, message)
}

// end closes the session; one that was lost is closed already.
func (s *session) end() { _ = s.lib.CloseSession(s.handle) }
