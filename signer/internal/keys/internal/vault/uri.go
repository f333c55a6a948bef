package vault

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

// Config is a key, and how to reach it.
type Config struct {
	// Address is the server's, https://host:port[/prefix]; http only on loopback.
	Address *url.URL
	// Mount is where the transit engine is, "transit" by default; Key is the key's name.
	Mount, Key string
	// Version is the key's; 0 is the latest at the time of opening.
	Version int
	// Namespace is sent if it isn't empty.
	Namespace string
	// CAFile holds the certificates to trust instead of the system's; "" none.
	CAFile string
	// Token is asked before each request, so that a token that was renewed is taken up.
	Token func() (string, error)
}

// Scheme starts the URIs of these keys.
const Scheme = "vault://"

// Parse reads vault://MOUNT/KEY[?version=N][&namespace=NS]. The rest is in the variables
// that the tools of Vault and OpenBao know: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE,
// VAULT_CACERT, and the same with BAO_, which come first. Without VAULT_TOKEN the token is in
// the file VAULT_TOKEN_FILE, or ~/.vault-token, where "vault login" puts it.
func Parse(uri string, env func(string) string) (Config, error) {
	const form = "write vault://MOUNT/KEY or vault://MOUNT/KEY?version=N"
	path, query, _ := strings.Cut(strings.TrimPrefix(uri, Scheme), "?")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		name, err := url.PathUnescape(s)
		if err != nil || name == "" || name == "." || name == ".." || strings.ContainsFunc(name, forbidden) {
			return Config{}, fmt.Errorf("%q can't be part of its path; %s", s, form)
		}
		segments[i] = name
	}
	if len(segments) < 2 {
		return Config{}, fmt.Errorf("it names no key; %s", form)
	}
	lookup := func(name string) string {
		if v := env("BAO_" + name); v != "" {
			return v
		}
		return env("VAULT_" + name)
	}
	last := len(segments) - 1
	c := Config{
		Mount: strings.Join(segments[:last], "/"), Key: segments[last],
		Namespace: lookup("NAMESPACE"), CAFile: lookup("CACERT"), Token: tokenSource(lookup, env("HOME")),
	}
	if err := c.parseQuery(query); err != nil {
		return Config{}, err
	}
	if strings.ContainsFunc(c.Namespace, forbidden) {
		return Config{}, fmt.Errorf("the namespace %q has characters that a namespace can't have", c.Namespace)
	}
	var err error
	c.Address, err = parseAddress(lookup("ADDR"))
	return c, err
}

// forbidden are the characters that would end a segment, or a header.
func forbidden(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#\%`, r) }

func (c *Config) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("what follows its ? can't be read")
	}
	for name, list := range values {
		if len(list) != 1 {
			return fmt.Errorf("it gives %s twice", name)
		}
		switch name {
		case "version":
			if c.Version, err = strconv.Atoi(list[0]); err != nil || c.Version < 1 {
				return fmt.Errorf("version=%s: found is no version; allowed is a whole number from 1", list[0])
			}
		case "namespace":
			c.Namespace = list[0]
		default:
			return fmt.Errorf("it gives %q; allowed are version and namespace", name)
		}
	}
	return nil
}

func parseAddress(address string) (*url.URL, error) {
	if address == "" {
		return nil, errors.New("VAULT_ADDR is not set; set it to the server's address, https://host:8200")
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !slices.Contains([]string{"https", "http"}, u.Scheme) || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("VAULT_ADDR is not an address; allowed is https://host:8200")
	}
	if u.User != nil {
		return nil, errors.New("VAULT_ADDR holds a user or password; allowed is https://host:8200")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("VAULT_ADDR is %s: the token would be sent without encryption; use https", address)
	}
	return u, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// tokenSource finds the token anew each time.
func tokenSource(lookup func(string) string, home string) func() (string, error) {
	return func() (string, error) {
		if token := lookup("TOKEN"); token != "" {
			return checkToken("VAULT_TOKEN", token)
		}
		file := lookup("TOKEN_FILE")
		if file == "" && home != "" {
			file = filepath.Join(home, ".vault-token")
		}
		if file == "" {
			return "", errors.New("there is no token: set VAULT_TOKEN or VAULT_TOKEN_FILE")
		}
		data, err := private.Secret("token file", file)
		if err != nil {
			return "", fmt.Errorf("there is no token in VAULT_TOKEN, nor in a file: %w", err)
		}
		return checkToken(file, strings.TrimSpace(string(data)))
	}
}

// checkToken never repeats the token.
func checkToken(where, token string) (string, error) {
	if token == "" || len(token) > 4<<10 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("what %s holds is not a token", where)
	}
	return token, nil
}
