package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys/internal/private"
)

// ListFile is the file in a key folder that says where keys are:
//
//	apiVersion: fleet.gpuaas.dev/v1
//	kind: KeySet
//	roles:
//	  root: [root.key, alice.pub, bob.pub]
//	  fleet: ["vault://transit/fleet?version=3"]
//
// A role lists the URIs that Open takes; relative paths are relative to the file's folder. A role that
// isn't listed has its file in the folder, as without the list. Whoever can write the list
// chooses who signs, so others must not be able to.
const ListFile = "keys.yaml"

// KindKeySet is the kind of ListFile.
const KindKeySet = "KeySet"

// document is the content of ListFile.
type document struct {
	APIVersion string              `yaml:"apiVersion"`
	Kind       string              `yaml:"kind"`
	Roles      map[string][]string `yaml:"roles"`
}

// Validate implements the strict decoder's hook.
func (d *document) Validate(c *strict.Context) {
	if d.APIVersion != v1.APIVersion {
		c.Errorf("apiVersion", "found %q; allowed: %q", d.APIVersion, v1.APIVersion)
	}
	if d.Kind != KindKeySet {
		c.Errorf("kind", "found %q; allowed: %q", d.Kind, KindKeySet)
	}
	for _, role := range slices.Sorted(maps.Keys(d.Roles)) {
		if len(d.Roles[role]) == 0 {
			c.Errorf("roles."+role, "found no key; allowed is one or more, or leave the role out")
		}
		seen := map[string]bool{}
		for i, uri := range d.Roles[role] {
			field := fmt.Sprintf("roles.%s[%d]", role, i)
			if _, _, err := parse(uri); err != nil {
				c.Errorf(field, "found %q: %v", shown(uri), err)
			} else if seen[uri] {
				c.Errorf(field, "found %q a second time; allowed is each key once", shown(uri))
			}
			seen[uri] = true
		}
	}
}

// list is a Set as it is on disk.
type list struct {
	dir   string
	roles map[string][]string // of ListFile; never nil
}

// list reads the list, if there is one, and looks at the folder.
func (s Set) list() (list, error) {
	info, err := os.Stat(s.Dir)
	if err != nil {
		return list{}, fmt.Errorf("cannot open the keys: %w", err)
	}
	l := list{dir: s.Dir, roles: map[string][]string{}}
	file := filepath.Join(s.Dir, ListFile)
	if !info.IsDir() {
		l.dir, file = filepath.Dir(s.Dir), s.Dir
	}
	if err := private.Folder("the key folder", l.dir); err != nil {
		return list{}, err
	}
	data, err := private.Trusted("list of keys", file)
	if errors.Is(err, fs.ErrNotExist) && info.IsDir() {
		return l, nil
	}
	if err != nil {
		return list{}, err
	}
	var d document
	if err := strict.Decode(file, data, &d); err != nil {
		return list{}, err
	}
	l.roles = d.Roles
	return l, nil
}

// uris are those of a role, with relative paths put into the folder.
func (l list) uris(role string) []string {
	listed, ok := l.roles[role]
	if !ok {
		return []string{l.path(role + suffix)}
	}
	out := make([]string, len(listed))
	for i, uri := range listed {
		out[i] = uri
		if kind, path, err := parse(uri); err == nil && kind == schemeFile {
			out[i] = l.path(path)
		}
	}
	return out
}

// path is that of a file in the folder. One that could be taken for a URI is spelled so that it can't.
func (l list) path(name string) string {
	p := name
	if !filepath.IsAbs(name) {
		p = filepath.Join(l.dir, name)
	}
	if scheme.MatchString(p) && !strings.HasPrefix(p, "/") {
		p = "./" + p
	}
	return p
}
