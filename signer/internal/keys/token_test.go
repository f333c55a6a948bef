//go:build pkcs11 && cgo

package keys_test

import (
	"crypto/ed25519"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

const (
	ckmEdwardsKeyPairGen = 0x1055
	testPIN              = "648219"
)

// softHSM is a real token in software. Its library has one state for the process, so that
// there is one, for one test.
type softHSM struct {
	module, tokens string
	lib            *pkcs11.Ctx
}

func startSoftHSM(t *testing.T) *softHSM {
	t.Helper()
	util, err := exec.LookPath("softhsm2-util")
	if err != nil {
		t.Fatal("softhsm2-util is missing: install the package softhsm2")
	}
	h := &softHSM{tokens: filepath.Join(tight(t), "tokens")}
	places, err := filepath.Glob("/usr/lib*/softhsm/libsofthsm2.so")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("/usr/lib*/*/softhsm/libsofthsm2.so")
	if err != nil {
		t.Fatal(err)
	}
	if places = append(places, more...); len(places) == 0 {
		t.Fatal("libsofthsm2.so is missing: install the package softhsm2")
	}
	h.module = places[0]
	if err := os.Mkdir(h.tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := write(t, filepath.Join(filepath.Dir(h.tokens), "softhsm2.conf"),
		[]byte("directories.tokendir = "+h.tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600)
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, token := range []string{"release", "spare", "twin", "twin"} {
		cmd := exec.Command(util, "--init-token", "--free", "--label", token, "--so-pin", "13572468", "--pin", testPIN)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("softhsm2-util: %v: %s", err, out)
		}
	}
	h.lib = pkcs11.New(h.module)
	if h.lib == nil {
		t.Fatalf("cannot load %s", h.module)
	}
	h.restart(t)
	t.Cleanup(func() { _ = h.lib.Finalize() })
	return h
}

// restart ends all sessions of the process and has the library look at its tokens anew.
func (h *softHSM) restart(t *testing.T) {
	t.Helper()
	if err := h.lib.Finalize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		t.Fatal(err)
	}
	if err := h.lib.Initialize(); err != nil {
		t.Fatal(err)
	}
}

// inRelease runs something in a session with the token release that may write.
func (h *softHSM) inRelease(t *testing.T, what func(pkcs11.SessionHandle) error) {
	t.Helper()
	slots, err := h.lib.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		info, err := h.lib.GetTokenInfo(slot)
		if err != nil || info.Label != "release" {
			continue
		}
		s, err := h.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(h.lib.Login(s, pkcs11.CKU_USER, testPIN), what(s), h.lib.Logout(s), h.lib.CloseSession(s))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no token release")
}

// generate makes a key pair in the token release and returns its public key.
func (h *softHSM) generate(t *testing.T, label string, id byte, mechanism uint, curve any) []byte {
	t.Helper()
	params, err := asn1.Marshal(curve)
	if err != nil {
		t.Fatal(err)
	}
	attr := pkcs11.NewAttribute
	var point []byte
	h.inRelease(t, func(s pkcs11.SessionHandle) error {
		public, _, err := h.lib.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
			[]*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_PRIVATE, false), attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_EC_PARAMS, params), attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, []byte{id})},
			[]*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false), attr(pkcs11.CKA_SIGN, true), attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, []byte{id})})
		if err != nil {
			return err
		}
		got, err := h.lib.GetAttributeValue(s, public, []*pkcs11.Attribute{attr(pkcs11.CKA_EC_POINT, nil)})
		if err != nil {
			return err
		}
		if _, err := asn1.Unmarshal(got[0].Value, &point); err != nil {
			return fmt.Errorf("the point %x: %w", got[0].Value, err)
		}
		return nil
	})
	return point
}

// edwards25519 is the curve as PKCS#11 3.0 names it: a PrintableString, which encoding/asn1 makes of it.
const edwards25519 = "edwards25519"

var p256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}

func TestTokens(t *testing.T) {
	h := startSoftHSM(t)
	public := ed25519.PublicKey(h.generate(t, "fleet", 1, ckmEdwardsKeyPairGen, edwards25519))
	h.generate(t, "other", 2, ckmEdwardsKeyPairGen, edwards25519)
	h.generate(t, "ecdsa", 3, pkcs11.CKM_EC_KEY_PAIR_GEN, p256)
	h.generate(t, "double", 4, ckmEdwardsKeyPairGen, edwards25519)
	h.generate(t, "double", 5, ckmEdwardsKeyPairGen, edwards25519)
	h.restart(t)

	pin := write(t, filepath.Join(tight(t), "pin"), []byte(testPIN+"\n"), 0o600)
	in := "pkcs11:token=release;object="
	source := "?module-path=" + h.module + "&pin-source=file:" + pin
	c := custody{
		options: keys.Options{Env: env(nil)},
		good:    in + "fleet;id=%01" + source, other: in + "other" + source, public: public,
		wrong: in + "ecdsa" + source, missing: in + "nobody" + source, absent: "there is no p",
		leave: func(t *testing.T) {
			rename(t, h.tokens, h.tokens+".away")
			if err := os.Mkdir(h.tokens, 0o700); err != nil {
				t.Fatal(err)
			}
			h.restart(t)
		},
		comeBack: func(t *testing.T) {
			if err := os.Remove(h.tokens); err != nil {
				t.Fatal(err)
			}
			rename(t, h.tokens+".away", h.tokens)
			h.restart(t)
		},
	}
	t.Run("PIN of a file", func(t *testing.T) { conform(t, c) })
	asked := 0
	c.options.Env = env(map[string]string{"PKCS11_MODULE_PATH": h.module})
	c.options.PIN = func(string) ([]byte, error) { asked++; return []byte(testPIN), nil }
	c.good, c.other, c.wrong, c.missing = in+"fleet", "pkcs11:serial="+h.serial(t)+";id=%02", in+"ecdsa", in+"nobody"
	h.restart(t)
	t.Run("PIN asked for", func(t *testing.T) { conform(t, c) })
	if asked == 0 {
		t.Error("the PIN was never asked for")
	}
	t.Run("lost sessions", func(t *testing.T) { h.lostSessions(t, c) })
	t.Run("refused", func(t *testing.T) { h.refused(t) })
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func (h *softHSM) serial(t *testing.T) string {
	t.Helper()
	slots, err := h.lib.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := h.lib.GetTokenInfo(slot); err == nil && info.Label == "release" {
			return info.SerialNumber
		}
	}
	t.Fatal("no token release")
	return ""
}

// lostSessions shows that a key signs on when its session ended behind its back, and
// that the PIN is asked for once while one lasts.
func (h *softHSM) lostSessions(t *testing.T, c custody) {
	h.restart(t)
	asked := 0
	o := c.options
	o.PIN = func(string) ([]byte, error) { asked++; return []byte(testPIN), nil }
	s, err := keys.Open(t.Context(), c.good, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, s)
	other, err := keys.Open(t.Context(), c.other, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeKey(t, other)
	if asked != 1 {
		t.Errorf("the PIN was asked for %d times", asked)
	}
	h.restart(t)
	mustSign(t, s, []byte("x"))
	mustSign(t, other, []byte("x"))
	if asked != 2 {
		t.Errorf("the PIN was asked for %d times", asked)
	}
	if err := h.lib.Finalize(); err != nil {
		t.Fatal(err)
	}
	mustSign(t, s, []byte("x"))
}

func (h *softHSM) refused(t *testing.T) {
	h.restart(t)
	dir := tight(t)
	wrongPIN := write(t, filepath.Join(dir, "pin"), []byte("1111\n"), 0o600)
	loose := write(t, filepath.Join(dir, "loose"), []byte(testPIN), 0o644)
	text := write(t, filepath.Join(dir, "m.so"), []byte("no library"), 0o600)
	writable := write(t, filepath.Join(dir, "w.so"), nil, 0o666)
	module := "module-path=" + h.module
	for _, c := range []struct{ name, uri, want string }{
		{"nobody to ask", "pkcs11:token=release;object=fleet?" + module, "nobody to ask"},
		{"wrong PIN", "pkcs11:token=release;object=fleet?" + module + "&pin-source=" + wrongPIN, "PIN is not that"},
		{"loose PIN file", "pkcs11:token=release;object=fleet?" + module + "&pin-source=" + loose, "chmod 600"},
		{"no such token", "pkcs11:token=nowhere;object=fleet?" + module, "no token that fits"},
		{"other slot", "pkcs11:token=release;slot-id=4000000000;object=fleet?" + module, "no token that fits"},
		{"two tokens", "pkcs11:token=twin;object=fleet?" + module, "2 tokens"},
		{"two keys", "pkcs11:token=release;object=double?" + module + "&pin-source=" + filepath.Join(dir, "good"), "several keys"},
		{"no such module", "pkcs11:object=fleet?module-path=/nowhere/m.so", "no such file"},
		{"no library", "pkcs11:object=fleet?module-path=" + text, "cannot load"},
		{"module that others can write", "pkcs11:object=fleet?module-path=" + writable, "chmod go-w"},
	} {
		write(t, filepath.Join(dir, "good"), []byte(testPIN), 0o600)
		_, err := keys.Open(t.Context(), c.uri, keys.Options{Env: env(nil)})
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) { says(t, err, c.want) })
	}
	_, err := keys.Public(t.Context(), "pkcs11:token=release;object=double?"+module, keys.Options{Env: env(nil)})
	says(t, err, "several keys")
}
