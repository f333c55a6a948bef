// Package pkcs11 signs with an Ed25519 key in a PKCS#11 token: a hardware security
// module, a smart card, or SoftHSM. The key never leaves the token.
//
// A key is named by a PKCS#11 URI (RFC 7512). Reading URIs is plain Go; speaking to a token
// needs cgo, and the build tag pkcs11. Without the tag Open fails and says so.
package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Scheme starts the URIs of these keys.
const Scheme = "pkcs11:"

// Config is a key, and the token that it is in. Of the attributes, those that aren't empty must fit.
type Config struct {
	// Token, Serial, Manufacturer and Model are the token's.
	Token, Serial, Manufacturer, Model string
	// Slot is where the token is, if HasSlot.
	Slot    uint
	HasSlot bool
	// Object is the label of the key, ID its CKA_ID.
	Object string
	ID     []byte
	// Module is the library that speaks to the token.
	Module string
	// PINSource is a file with the PIN; "": it is asked for.
	PINSource string
}

// Parse reads a PKCS#11 URI. The module is that of its module-path, or of the variable
// PKCS11_MODULE_PATH. An attribute that isn't known is refused, since without it another
// key might fit; so is a PIN, which is no thing to write down there.
func Parse(uri string, env func(string) string) (Config, error) {
	var c Config
	path, query, _ := strings.Cut(strings.TrimPrefix(uri, Scheme), "?")
	if err := attributes(path, ";", c.pathAttribute); err != nil {
		return Config{}, err
	}
	if err := attributes(query, "&", c.queryAttribute); err != nil {
		return Config{}, err
	}
	if c.Object == "" && len(c.ID) == 0 {
		return Config{}, errors.New("it names no key; give object=LABEL or id=%01, as in pkcs11:token=release;object=fleet")
	}
	if c.Module == "" {
		c.Module = env("PKCS11_MODULE_PATH")
	}
	if c.Module == "" {
		return Config{}, errors.New("it names no module; add ?module-path=/usr/lib/... or set PKCS11_MODULE_PATH")
	}
	if !filepath.IsAbs(c.Module) {
		return Config{}, fmt.Errorf("the module %q is not an absolute path", c.Module)
	}
	return c, nil
}

// attributes splits name=value pairs, whose values are percent-encoded.
func attributes(s, separator string, take func(name, value string) error) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(s, separator) {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			// What is no attribute may be a PIN, so it isn't repeated.
			return fmt.Errorf("attribute %d has no =; allowed is name=value, separated by %s", len(seen)+1, separator)
		}
		if seen[name] {
			return fmt.Errorf("it gives %s twice", name)
		}
		seen[name] = true
		decoded, err := url.PathUnescape(value)
		if err != nil || decoded == "" {
			return fmt.Errorf("the value of %s is empty or not percent-encoded", name)
		}
		if err := take(name, decoded); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) pathAttribute(name, value string) error {
	switch name {
	case "token":
		c.Token = value
	case "serial":
		c.Serial = value
	case "manufacturer":
		c.Manufacturer = value
	case "model":
		c.Model = value
	case "object":
		c.Object = value
	case "id":
		c.ID = []byte(value)
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("slot-id=%s: found is no slot; allowed is a whole number", value)
		}
		c.Slot, c.HasSlot = uint(n), true
	case "type":
		if value != "private" {
			return fmt.Errorf("type=%s: allowed is private", value)
		}
	default:
		return fmt.Errorf("it gives %q; allowed are token, serial, manufacturer, model, slot-id, object, id, type", name)
	}
	return nil
}

func (c *Config) queryAttribute(name, value string) error {
	switch name {
	case "module-path":
		c.Module = value
	case "pin-source":
		path := value
		if rest, ok := strings.CutPrefix(value, "file:"); ok {
			path = strings.TrimPrefix(rest, "//")
		}
		if !filepath.IsAbs(path) {
			return fmt.Errorf("pin-source=%s: allowed is an absolute path, file:/path or /path", value)
		}
		c.PINSource = path
	case "pin-value":
		return errors.New("it holds a PIN; leave pin-value out to be asked, or give the file that holds it as pin-source=file:/path")
	default:
		return fmt.Errorf("it gives %q after the ?; allowed are module-path and pin-source", name)
	}
	return nil
}
