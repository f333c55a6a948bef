//go:build pkcs11 && cgo

package pkcs11

import (
	"fmt"
	"strings"
)

// describe names the token for people.
func (c Config) describe() string {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"token", c.Token}, {"serial", c.Serial}, {"manufacturer", c.Manufacturer}, {"model", c.Model},
	} {
		if p.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", p.name, p.value))
		}
	}
	if c.HasSlot {
		parts = append(parts, fmt.Sprintf("slot %d", c.Slot))
	}
	if len(parts) == 0 {
		return "any token"
	}
	return strings.Join(parts, ", ")
}

// key names the key for people.
func (c Config) key() string {
	switch {
	case c.Object == "":
		return fmt.Sprintf("with id %x", c.ID)
	case len(c.ID) == 0:
		return fmt.Sprintf("%q", c.Object)
	default:
		return fmt.Sprintf("%q with id %x", c.Object, c.ID)
	}
}
