// Package vault signs with an Ed25519 key of the transit engine of HashiCorp Vault or
// OpenBao, over its HTTP API. The key never leaves the server.
//
// Two requests are made: GET MOUNT/keys/KEY for the type and the public key, and
// POST MOUNT/sign/KEY for each signature, with the version of the key pinned, since
// transit keys are rotated in place.
//
// The token goes into the header of a request, and nowhere else: redirects aren't followed, and
// what a server answers is stripped of it before it becomes part of an error.
package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

const (
	// maxAnswer is the most bytes of an answer. One with a thousand versions has 150 KB.
	maxAnswer = 1 << 20
	// maxQuote is how much of a server's words an error repeats.
	maxQuote = 300
)

// Key is one version of a transit key. Safe for concurrent use.
type Key struct {
	c       Config
	client  *http.Client
	version int
	public  ed25519.PublicKey
}

// Open reads the key's public part.
func Open(ctx context.Context, c Config) (*Key, error) {
	client, err := newClient(c)
	if err != nil {
		return nil, err
	}
	k := &Key{c: c, client: client}
	if err := k.read(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func newClient(c Config) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		data, err := private.Trusted("VAULT_CACERT", c.CAFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("cannot use VAULT_CACERT %s: it holds no PEM certificate", c.CAFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 30 * time.Second,
			MaxIdleConnsPerHost: 4, MaxResponseHeaderBytes: 64 << 10,
		},
		// Go would send the token to wherever a redirect points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// description is what the server tells of a key. The versions of a symmetric key
// are numbers, not objects.
type description struct {
	Type          string                     `json:"type"`
	Derived       bool                       `json:"derived"`
	LatestVersion int                        `json:"latest_version"`
	MinVersion    int                        `json:"min_encryption_version"`
	Keys          map[string]json.RawMessage `json:"keys"`
}

func (k *Key) read(ctx context.Context) error {
	var d description
	if err := k.call(ctx, http.MethodGet, "keys", nil, &d); err != nil {
		return fmt.Errorf("cannot read transit key %s: %w", k.name(), err)
	}
	if d.Type != "ed25519" {
		return fmt.Errorf("cannot use transit key %s: it is of type %q; only Ed25519 keys (type ed25519) sign metadata", k.name(), d.Type)
	}
	if d.Derived {
		return fmt.Errorf("cannot use transit key %s: it is a derived key; make one with derived=false", k.name())
	}
	k.version = k.c.Version
	if k.version == 0 {
		k.version = d.LatestVersion
	}
	entry, ok := d.Keys[strconv.Itoa(k.version)]
	if !ok {
		return fmt.Errorf("transit key %s has no version %d; it has %s", k.name(), k.version, versions(d.Keys))
	}
	if k.version < d.MinVersion {
		return fmt.Errorf("transit key %s signs from version %d on (min_encryption_version), not with version %d", k.name(), d.MinVersion, k.version)
	}
	var version struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal(entry, &version); err != nil {
		return fmt.Errorf("cannot read version %d of transit key %s: %w", k.version, k.name(), err)
	}
	public, err := base64.StdEncoding.DecodeString(version.PublicKey)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("transit key %s: the server gave no Ed25519 public key for version %d", k.name(), k.version)
	}
	k.public = public
	return nil
}

// versions lists at most the ten latest.
func versions(keys map[string]json.RawMessage) string {
	var known []int
	for _, s := range slices.Collect(maps.Keys(keys)) {
		if n, err := strconv.Atoi(s); err == nil {
			known = append(known, n)
		}
	}
	if len(known) == 0 {
		return "none"
	}
	slices.Sort(known)
	prefix := ""
	if len(known) > 10 {
		known, prefix = known[len(known)-10:], "among others "
	}
	var list []string
	for _, n := range known {
		list = append(list, strconv.Itoa(n))
	}
	return prefix + strings.Join(list, ", ")
}

func (k *Key) name() string { return k.c.Mount + "/" + k.c.Key }

// Public is the public key of the pinned version.
func (k *Key) Public() ed25519.PublicKey { return k.public }

// Sign has the server sign the message: plain Ed25519, nothing hashed before.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	request := struct {
		Input      []byte `json:"input"`
		KeyVersion int    `json:"key_version"`
	}{message, k.version}
	if request.Input == nil {
		request.Input = []byte{} // null is not the empty string
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the request: %w", err)
	}
	var answer struct {
		Signature string `json:"signature"`
	}
	if err := k.call(ctx, http.MethodPost, "sign", body, &answer); err != nil {
		return nil, fmt.Errorf("transit key %s: %w", k.name(), err)
	}
	// "vault:v3:" and base64, with OpenBao too.
	prefix := fmt.Sprintf("vault:v%d:", k.version)
	text, ok := strings.CutPrefix(answer.Signature, prefix)
	if !ok {
		return nil, fmt.Errorf("transit key %s: the server's signature does not begin with %s", k.name(), prefix)
	}
	sig, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("transit key %s: the server's signature is not base64", k.name())
	}
	return sig, nil
}

// Close gives up idle connections.
func (k *Key) Close() error {
	k.client.CloseIdleConnections()
	return nil
}

// call makes one request and decodes the "data" of its answer into out.
func (k *Key) call(ctx context.Context, method, operation string, body []byte, out any) error {
	token, err := k.c.Token()
	if err != nil {
		return err
	}
	path := append([]string{"v1"}, strings.Split(k.c.Mount, "/")...)
	u := k.c.Address.JoinPath(append(path, operation, k.c.Key)...)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot make the request: %w", err)
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("X-Vault-Request", "true")
	if k.c.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", k.c.Namespace)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach the server at VAULT_ADDR: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("cannot read the answer of %s: %w", k.c.Address.Host, err)
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("the answer of %s has more than %d bytes", k.c.Address.Host, maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return k.refusal(resp, data, token)
	}
	answer := struct {
		Data any `json:"data"`
	}{out}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("cannot read the answer of %s: is VAULT_ADDR that of a Vault or OpenBao server? it is not JSON as expected", k.c.Address.Host)
	}
	return nil
}

// refusal says what an answer other than 200 means, and what to do.
func (k *Key) refusal(resp *http.Response, data []byte, token string) error {
	var answer struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(data, &answer) // a proxy's error page is no JSON, and has no use here
	said := ""
	if len(answer.Errors) > 0 {
		text := strings.ReplaceAll(strings.Join(answer.Errors, "; "), token, "[token]")
		if len(text) > maxQuote {
			text = text[:maxQuote] + "..."
		}
		said = fmt.Sprintf(": %q", text)
	}
	host := k.c.Address.Host
	switch code := resp.StatusCode; {
	case code == http.StatusForbidden:
		return fmt.Errorf("%s refused the token%s; it must be valid and its policy allow to read %s/keys/%s and to update %s/sign/%s",
			host, said, k.c.Mount, k.c.Key, k.c.Mount, k.c.Key)
	case code == http.StatusNotFound:
		return fmt.Errorf("%s has no such key, or no transit engine at %s/%s", host, k.c.Mount, said)
	case code == http.StatusServiceUnavailable:
		return fmt.Errorf("%s is sealed or down%s; try again later", host, said)
	case code == http.StatusTooManyRequests:
		return fmt.Errorf("%s is asked too often%s; try again later", host, said)
	case code >= 300 && code < 400:
		return fmt.Errorf("%s answers with a redirect, which would take the token elsewhere; set VAULT_ADDR to the active server", host)
	default:
		return fmt.Errorf("%s answered %d%s", host, code, said)
	}
}
