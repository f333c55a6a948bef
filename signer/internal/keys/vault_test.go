package keys_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

const goodToken = "hvs.CAESIJ-secret-of-the-test"

// transitKey is a key of transitServer.
type transitKey struct {
	Type     string
	Derived  bool
	Min      int
	Versions []ed25519.PrivateKey // version 1 first
}

// transitServer answers as the transit engine's HTTP API is documented: GET
// /v1/MOUNT/keys/KEY and POST /v1/MOUNT/sign/KEY, with the errors of the servers. Vault
// and OpenBao themselves are not to be had as a Debian package or Go module.
type transitServer struct {
	mount, namespace string

	mu    sync.Mutex
	token string
	keys  map[string]*transitKey
	// around, if set, answers instead, and returns true.
	around func(http.ResponseWriter, *http.Request) bool
}

func (s *transitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.around != nil && s.around(w, r) {
		return
	}
	if r.Header.Get("X-Vault-Token") != s.token || r.Header.Get("X-Vault-Namespace") != s.namespace {
		refuse(w, http.StatusForbidden, "permission denied")
		return
	}
	operation, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"+s.mount+"/"), "/")
	key := s.keys[name]
	switch {
	case operation == "keys" && r.Method == http.MethodGet:
		s.describe(w, name, key)
	case operation == "sign" && r.Method == http.MethodPost:
		s.sign(w, r, key)
	default:
		refuse(w, http.StatusNotFound, "no handler for route \""+r.URL.Path+"\". route entry not found.")
	}
}

func (s *transitServer) describe(w http.ResponseWriter, name string, key *transitKey) {
	if key == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	versions := map[string]any{}
	for i, v := range key.Versions {
		switch key.Type {
		case "ed25519":
			versions[strconv.Itoa(i+1)] = map[string]any{
				"name": "ed25519", "creation_time": "2026-01-02T03:04:05Z", "certificate_chain": "",
				"public_key": base64.StdEncoding.EncodeToString(publicOf(v)),
			}
		default: // symmetric
			versions[strconv.Itoa(i+1)] = 1442851412
		}
	}
	answer(w, map[string]any{
		"type": key.Type, "derived": key.Derived, "keys": versions, "name": name, "exportable": false,
		"allow_plaintext_backup": false, "deletion_allowed": false, "imported_key": false,
		"latest_version": len(key.Versions), "min_available_version": 0, "min_decryption_version": 1,
		"min_encryption_version": key.Min, "supports_signing": key.Type == "ed25519",
	})
}

func (s *transitServer) sign(w http.ResponseWriter, r *http.Request, key *transitKey) {
	var body struct {
		Input      *string `json:"input"`
		KeyVersion int     `json:"key_version"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Input == nil {
		refuse(w, http.StatusBadRequest, "missing input")
		return
	}
	input, err := base64.StdEncoding.DecodeString(*body.Input)
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "unable to decode input as base64: "+err.Error())
	case key == nil:
		refuse(w, http.StatusBadRequest, "signing key not found")
	case key.Type != "ed25519":
		refuse(w, http.StatusBadRequest, fmt.Sprintf("key type %s does not support signing", key.Type))
	case body.KeyVersion > len(key.Versions) || body.KeyVersion < 0:
		refuse(w, http.StatusInternalServerError, "cannot sign: version is higher than the latest key version")
	default:
		version := body.KeyVersion
		if version == 0 {
			version = len(key.Versions)
		}
		sig := ed25519.Sign(key.Versions[version-1], input)
		answer(w, map[string]any{
			"signature":   fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(sig)),
			"key_version": version, "public_key": base64.StdEncoding.EncodeToString(publicOf(key.Versions[version-1])),
		})
	}
}

func answer(w http.ResponseWriter, data map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "8f8a", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": nil, "auth": nil,
	})
}

func refuse(w http.ResponseWriter, code int, errs ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, errs...)})
}

func (s *transitServer) answerWith(around func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.around = around
}

func (s *transitServer) change(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
}

// newTransit has the keys fleet, with two versions, other and aes.
func newTransit(t *testing.T) (*transitServer, map[string]string) {
	t.Helper()
	s := &transitServer{mount: "teams/transit", token: goodToken, namespace: "ops/release", keys: map[string]*transitKey{
		"fleet": {Type: "ed25519", Versions: []ed25519.PrivateKey{newKey(t), newKey(t)}},
		"other": {Type: "ed25519", Versions: []ed25519.PrivateKey{newKey(t)}},
		"aes":   {Type: "aes256-gcm96", Versions: []ed25519.PrivateKey{nil}},
	}}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return s, map[string]string{
		"VAULT_ADDR": server.URL, "VAULT_TOKEN": goodToken, "VAULT_NAMESPACE": "ops/release",
		"VAULT_CACERT": write(t, filepath.Join(tight(t), "ca.pem"), ca, 0o644),
	}
}

func TestVaultConforms(t *testing.T) {
	s, vars := newTransit(t)
	const mount = "vault://teams/transit/"
	c := custody{
		options: keys.Options{Env: env(vars)},
		good:    mount + "fleet", other: mount + "other", public: publicOf(s.keys["fleet"].Versions[1]),
		wrong: mount + "aes", missing: mount + "nobody", absent: "no such key",
		leave: func(*testing.T) {
			s.answerWith(func(w http.ResponseWriter, _ *http.Request) bool {
				refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
				return true
			})
		},
		comeBack: func(*testing.T) { s.answerWith(nil) },
	}
	conform(t, c)
	c.good, c.public = mount+"fleet?version=1", publicOf(s.keys["fleet"].Versions[0])
	conform(t, c)
}

func TestVaultRotationKeepsTheVersion(t *testing.T) {
	s, vars := newTransit(t)
	key, err := keys.Open(t.Context(), "vault://teams/transit/fleet", keys.Options{Env: env(vars)})
	if err != nil {
		t.Fatal(err)
	}
	s.change(func() { s.keys["fleet"].Versions = append(s.keys["fleet"].Versions, newKey(t)) })
	if sig := mustSign(t, key, []byte("x")); !ed25519.Verify(publicOf(s.keys["fleet"].Versions[1]), []byte("x"), sig) {
		t.Error("signed with another version")
	}
	// Another key under the same version: what was opened is not what signs.
	s.change(func() { s.keys["fleet"].Versions[1] = newKey(t) })
	_, err = key.Sign(nil, []byte("x"), nil)
	says(t, err, "does not verify")
}

func TestVaultTokens(t *testing.T) {
	s, vars := newTransit(t)
	file := write(t, filepath.Join(tight(t), "token"), []byte(goodToken+"\n"), 0o600)
	delete(vars, "VAULT_TOKEN")
	vars["VAULT_TOKEN_FILE"] = file
	o := keys.Options{Env: env(vars)}
	key, err := keys.Open(t.Context(), "vault://teams/transit/fleet", o)
	if err != nil {
		t.Fatal(err)
	}
	// A renewed token is taken up by a key that is open.
	s.change(func() { s.token = "hvs.renewed" })
	_, err = key.Sign(nil, []byte("x"), nil)
	says(t, err, "refused the token", "teams/transit/sign/fleet")
	write(t, file, []byte("hvs.renewed"), 0o600)
	mustSign(t, key, []byte("x"))

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = key.Sign(nil, []byte("x"), nil)
	says(t, err, "chmod 600")

	home := tight(t)
	delete(vars, "VAULT_TOKEN_FILE")
	vars["HOME"] = home
	_, err = keys.Open(t.Context(), "vault://teams/transit/fleet", o)
	says(t, err, "no token", "no such file")
	write(t, filepath.Join(home, ".vault-token"), []byte("hvs.renewed"), 0o600)
	if _, err = keys.Open(t.Context(), "vault://teams/transit/fleet", o); err != nil {
		t.Error(err)
	}
	delete(vars, "HOME")
	_, err = keys.Open(t.Context(), "vault://teams/transit/fleet", o)
	says(t, err, "set VAULT_TOKEN")
	vars["BAO_TOKEN"], vars["VAULT_TOKEN"] = "hvs.renewed", "stale"
	if _, err = keys.Open(t.Context(), "vault://teams/transit/fleet", o); err != nil {
		t.Error(err)
	}
}

// TestVaultRefuses looks at everything that is wrong before, or in, an answer. No error may
// hold the token, whatever the server says.
func TestVaultRefuses(t *testing.T) {
	uri := "vault://teams/transit/fleet"
	set := func(name, value string) func(*transitServer, map[string]string) {
		return func(_ *transitServer, vars map[string]string) { vars[name] = value }
	}
	reply := func(code int, body string) func(*transitServer, map[string]string) {
		return func(s *transitServer, _ map[string]string) {
			s.around = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(code)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	cases := []struct {
		name, uri string
		with      func(*transitServer, map[string]string)
		want      string
	}{
		{"no address", uri, set("VAULT_ADDR", ""), "VAULT_ADDR is not set"},
		{"no URL", uri, set("VAULT_ADDR", "127.0.0.1:8200"), "not an address"},
		{"password in the address", uri, set("VAULT_ADDR", "https://u:"+goodToken+"@127.0.0.1:8200"), "user or password"},
		{"token over http", uri, set("VAULT_ADDR", "http://vault.example.com:8200"), "without encryption"},
		{"nobody there", uri, set("VAULT_ADDR", "https://127.0.0.1:1"), "cannot reach"},
		{"unknown authority", uri, set("VAULT_CACERT", ""), "certificate"},
		{"no certificate", uri, set("VAULT_CACERT", "/nowhere/ca.pem"), "no such file"},
		{"bad token", uri, set("VAULT_TOKEN", goodToken+"\nX-Other: 1"), "not a token"},
		{"wrong token", uri, set("VAULT_TOKEN", goodToken+"x"), "refused the token"},
		{"wrong namespace", uri, set("VAULT_NAMESPACE", "ops"), "refused the token"},
		{"namespace of the URI", uri + "?namespace=elsewhere", nil, "refused the token"},
		{"bad namespace", uri, set("VAULT_NAMESPACE", "a\r\nb"), "namespace"},
		{"no mount", "vault://fleet", nil, "names no key"},
		{"nothing", "vault://", nil, "vault://MOUNT/KEY"},
		{"no slashes", "vault:transit/fleet", nil, "vault://MOUNT/KEY"},
		{"empty segment", "vault://transit//fleet", nil, "vault://MOUNT/KEY"},
		{"dots", "vault://transit/../sys", nil, "vault://MOUNT/KEY"},
		{"hidden slash", "vault://transit/%2e%2e/fleet", nil, "vault://MOUNT/KEY"},
		{"version 0", uri + "?version=0", nil, "from 1"},
		{"version no number", uri + "?version=x", nil, "from 1"},
		{"version twice", uri + "?version=1&version=2", nil, "twice"},
		{"unknown parameter", uri + "?token=" + "t", nil, "allowed are version and namespace"},
		{"version that is not there", uri + "?version=7", nil, "no version 7; it has 1, 2"},
		{"version too old", uri + "?version=1", func(s *transitServer, _ map[string]string) { s.keys["fleet"].Min = 2 }, "min_encryption_version"},
		{"derived", uri, func(s *transitServer, _ map[string]string) { s.keys["fleet"].Derived = true }, "derived=false"},
		{"another mount", "vault://transit/fleet", nil, "no transit engine"},
		{"sealed", uri, reply(503, `{"errors":["Vault is sealed"]}`), "sealed or down"},
		{"too often", uri, reply(429, `{"errors":["slow down"]}`), "too often"},
		{"broken", uri, reply(500, `{"errors":["1 error occurred"]}`), "answered 500"},
		{"token comes back", uri, reply(500, `{"errors":["bad token `+goodToken+`"]}`), "[token]"},
		{"long error", uri, reply(500, `{"errors":["`+strings.Repeat("e", 1<<16)+`"]}`), "eee..."},
		{"error page", uri, reply(502, "<html>bad gateway</html>"), "answered 502"},
		{"no JSON", uri, reply(200, "<html>hello</html>"), "not JSON"},
		{"empty", uri, reply(200, "{}"), `type ""`},
		{"endless", uri, reply(200, `{"data":"`+strings.Repeat("x", 2<<20)+`"}`), "more than"},
		{"no public key", uri, reply(200, `{"data":{"type":"ed25519","latest_version":1,"keys":{"1":{"public_key":"AAAA"}}}}`), "no Ed25519 public key"},
		{"odd version", uri, reply(200, `{"data":{"type":"ed25519","latest_version":1,"keys":{"1":[]}}}`), "cannot read version 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, vars := newTransit(t)
			if c.with != nil {
				c.with(s, vars)
			}
			_, err := keys.Open(t.Context(), c.uri, keys.Options{Env: env(vars)})
			says(t, err, c.want)
			if err != nil && (strings.Contains(err.Error(), goodToken) || len(err.Error()) > 1000) {
				t.Errorf("the error holds the token, or is too long: %.1000s", err)
			}
		})
	}
}

func TestVaultSignatures(t *testing.T) {
	cases := []struct{ name, signature, want string }{
		{"of another version", "vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, 64)), "begin with vault:v2:"},
		{"nothing", "", "begin with vault:v2:"},
		{"no base64", "vault:v2:%%%", "not base64"},
		{"short", "vault:v2:AAAA", "does not verify"},
		{"wrong", "vault:v2:" + base64.StdEncoding.EncodeToString(make([]byte, 64)), "does not verify"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, vars := newTransit(t)
			key, err := keys.Open(t.Context(), "vault://teams/transit/fleet", keys.Options{Env: env(vars)})
			if err != nil {
				t.Fatal(err)
			}
			s.answerWith(func(w http.ResponseWriter, _ *http.Request) bool {
				answer(w, map[string]any{"signature": c.signature})
				return true
			})
			_, err = key.Sign(nil, []byte("x"), nil)
			says(t, err, c.want)
		})
	}
}

// TestVaultRedirectKeepsToken shows that a server can't have the token sent elsewhere.
func TestVaultRedirectKeepsToken(t *testing.T) {
	asked := make(chan string, 8)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header.Get("X-Vault-Token") }))
	defer thief.Close()
	s, vars := newTransit(t)
	s.answerWith(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	_, err := keys.Open(t.Context(), "vault://teams/transit/fleet", keys.Options{Env: env(vars)})
	says(t, err, "redirect")
	select {
	case token := <-asked:
		t.Errorf("it followed, with the token %q", token)
	default:
	}
}

func TestVaultThatNeverAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	vars := map[string]string{"VAULT_ADDR": "http://" + l.Addr().String(), "VAULT_TOKEN": goodToken}
	within(t, func() {
		_, err = keys.Open(t.Context(), "vault://transit/fleet", keys.Options{Env: env(vars), Timeout: 50 * time.Millisecond})
	})
	says(t, err, "deadline exceeded")
}
