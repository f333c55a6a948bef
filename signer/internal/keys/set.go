package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Set is a folder of key files, "<role>.key": root.key, targets.key, snapshot.key,
// timestamp.key and one for each team, fleet.key by default.
type Set struct {
	Dir string
	// Passphrase is asked for the passphrase of an encrypted file; nil: nobody to ask.
	Passphrase func(path string) ([]byte, error)
}

const suffix = ".key"

// Path is where the key of a role is.
func (s Set) Path(role string) string { return filepath.Join(s.Dir, role+suffix) }

// Generate makes a key for each role, in a folder of mode 0700. If one of the
// files exists, none is made.
func (s Set) Generate(roles []string, passphrase []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the key folder: %w", err)
	}
	for _, role := range roles {
		if _, err := os.Lstat(s.Path(role)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot make new keys in %s: %s exists; move it away or choose another folder", s.Dir, filepath.Base(s.Path(role)))
		}
	}
	for _, role := range roles {
		key, err := Generate()
		if err != nil {
			return err
		}
		if err := Save(s.Path(role), key, passphrase); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the keys of these roles; each must be there.
func (s Set) Load(roles ...string) (Signers, error) {
	out := Signers{}
	for _, role := range roles {
		path := s.Path(role)
		var ask func() ([]byte, error)
		if s.Passphrase != nil {
			ask = func() ([]byte, error) { return s.Passphrase(path) }
		}
		key, err := Load(path, ask)
		if err != nil {
			return nil, err
		}
		out[role] = append(out[role], key)
	}
	return out, nil
}

// Roles lists the roles that the folder has a key for, sorted.
func (s Set) Roles() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the key folder: %w", err)
	}
	var roles []string
	for _, e := range entries {
		if role, ok := strings.CutSuffix(e.Name(), suffix); ok && role != "" && !e.IsDir() {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles, nil
}
