package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

// Set says which keys sign which role. Without more, it is a folder of key files,
// "<role>.key": root.key, targets.key, snapshot.key, timestamp.key and one for each team,
// fleet.key by default. A file keys.yaml in the folder names other keys, role by role; see
// ListFile.
type Set struct {
	// Dir is the folder, or a file like keys.yaml, whose folder is then taken.
	Dir string
	// Passphrase and PIN are asked for what unlocks a key, see Options; nil: nobody to ask.
	Passphrase func(path string) ([]byte, error)
	PIN        func(uri string) ([]byte, error)
	// Env looks up environment variables; nil is os.Getenv.
	Env func(string) string
}

const suffix = ".key"

// Path is where the key of a role is when no keys.yaml says otherwise.
func (s Set) Path(role string) string { return filepath.Join(s.Dir, role+suffix) }

// Generate makes a key for each role, in a folder of mode 0700. If one of the
// files exists, none is made.
func (s Set) Generate(roles []string, passphrase []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the key folder: %w", err)
	}
	if err := private.Folder("the key folder", s.Dir); err != nil {
		return err
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

// List writes a ListFile, where there is none, that gives one role the keys of Generate with these names.
func (s Set) List(role string, names []string) error {
	path := filepath.Join(s.Dir, ListFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot write %s: it exists", path)
	}
	files := make([]string, len(names))
	for i, name := range names {
		files[i] = name + suffix
	}
	data := fmt.Appendf(nil, "# Where keys are. Roles that are not listed have ROLE.key in this folder.\n"+
		"apiVersion: %s\nkind: %s\nroles:\n  %s: [%s]\n", v1.APIVersion, KindKeySet, role, strings.Join(files, ", "))
	return durable.WriteFile(path, data, durable.Options{Mode: 0o600})
}

// Load is Open for signers that last as long as the process.
func (s Set) Load(roles ...string) (Signers, error) { return s.Open(context.Background(), roles...) }

// Open opens the keys of these roles. Of a role that lists several, all that aren't
// public keys must open, and there must be one. ctx is the signers' lifetime.
func (s Set) Open(ctx context.Context, roles ...string) (Signers, error) {
	return s.open(ctx, false, roles)
}

// OpenPresent is Open for roles whose keys are kept apart: files that aren't there are
// passed over, and a role may end up without keys.
func (s Set) OpenPresent(ctx context.Context, roles ...string) (Signers, error) {
	return s.open(ctx, true, roles)
}

func (s Set) open(ctx context.Context, absent bool, roles []string) (_ Signers, err error) {
	l, err := s.list()
	if err != nil {
		return nil, err
	}
	out := Signers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close())
		}
	}()
	for _, role := range roles {
		seen := map[string]string{}
		for _, uri := range l.uris(role) {
			if isPublic(uri) {
				continue
			}
			key, err := Open(ctx, uri, s.options())
			if absent && isFile(uri) && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("role %s: %w", role, err)
			}
			out[role] = append(out[role], key)
			if err := once(seen, role, uri, key.Public().(ed25519.PublicKey)); err != nil {
				return nil, err
			}
		}
		if len(out[role]) == 0 && !absent {
			return nil, fmt.Errorf("role %s: there is no key to sign with in %s, only public keys", role, s.Dir)
		}
	}
	return out, nil
}

func isFile(uri string) bool {
	kind, _, err := parse(uri)
	return err == nil && kind == schemeFile
}

// Public reads the public keys of a role, those that can't sign here too, in the order of
// the list: with a threshold, what init and a rotation say of the role. No
// passphrase and no PIN is asked.
func (s Set) Public(ctx context.Context, role string) ([]ed25519.PublicKey, error) {
	l, err := s.list()
	if err != nil {
		return nil, err
	}
	var out []ed25519.PublicKey
	seen := map[string]string{}
	for _, uri := range l.uris(role) {
		key, err := Public(ctx, uri, s.options())
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", role, err)
		}
		if err := once(seen, role, uri, key); err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

// URIs lists where the keys of a role are, with paths made absolute or relative to the working
// directory as Dir is. It opens none of them.
func (s Set) URIs(role string) ([]string, error) {
	l, err := s.list()
	if err != nil {
		return nil, err
	}
	return l.uris(role), nil
}

// once refuses a key that a role lists twice: it would count once.
func once(seen map[string]string, role, uri string, key ed25519.PublicKey) error {
	if other, ok := seen[string(key)]; ok {
		return fmt.Errorf("role %s: %s and %s are the same key; a key counts once for a threshold", role, shown(other), shown(uri))
	}
	seen[string(key)] = uri
	return nil
}

func (s Set) options() Options { return Options{Passphrase: s.Passphrase, PIN: s.PIN, Env: s.Env} }

// Roles lists the roles that there are keys for, sorted. A file that the list names
// for a role makes no role of its own.
func (s Set) Roles() ([]string, error) {
	l, err := s.list()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the key folder: %w", err)
	}
	roles := maps.Clone(l.roles)
	named := map[string]bool{}
	for role := range l.roles {
		for _, uri := range l.uris(role) {
			named[filepath.Clean(uri)] = true
		}
	}
	for _, e := range entries {
		role, ok := strings.CutSuffix(e.Name(), suffix)
		if _, listed := roles[role]; ok && role != "" && !e.IsDir() && !listed && !named[filepath.Join(l.dir, e.Name())] {
			roles[role] = nil
		}
	}
	return slices.Sorted(maps.Keys(roles)), nil
}
