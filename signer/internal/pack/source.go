package pack

import (
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"sort"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// SourceFile is the name of the file that describes a package's folder.
const SourceFile = "package.yaml"

// KindSource is the kind of that document.
const KindSource = "PackageSource"

// maxSourceFile bounds package.yaml.
const maxSourceFile = 1 << 20

// Source is package.yaml: what a package is made of.
type Source struct {
	v1.TypeMeta `yaml:",inline"`
	// Name is the package's name, as in packages/<name>.yaml of a fleet repo.
	Name string `yaml:"name"`
	// Version is for people, and the default tag; nothing decides by it.
	Version string `yaml:"version"`
	// Root is a folder beside package.yaml whose content every platform gets.
	Root string `yaml:"root,omitempty"`
	// Platforms maps "os/arch" to the folder with what only that platform gets.
	// Without it the package is one for all platforms.
	Platforms map[string]string `yaml:"platforms,omitempty"`
	// EntryPoints are the executables that units start, slash-separated, inside the package.
	EntryPoints []string `yaml:"entryPoints,omitempty"`
	// Units are the systemd unit files inside the package.
	Units []string `yaml:"units,omitempty"`
}

var versionRule = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+~-]{0,127}$`)

// Validate implements strict's hook: the rules that the shape doesn't tell.
func (s *Source) Validate(c *strict.Context) {
	if s.APIVersion != v1.APIVersion {
		c.Errorf("apiVersion", "found %q; allowed is %s", s.APIVersion, v1.APIVersion)
	}
	if s.Kind != KindSource {
		c.Errorf("kind", "found %q; allowed here is %s", s.Kind, KindSource)
	}
	check(c, "name", names.Label(s.Name))
	if !versionRule.MatchString(s.Version) {
		c.Errorf("version", "found %q; allowed are letters, digits and ._+~-, at most 128 characters", s.Version)
	}
	if s.Root == "" && len(s.Platforms) == 0 {
		c.Errorf("root", "missing; name a folder with the files, or one a platform in platforms")
	}
	if s.Root != "" {
		check(c, "root", names.RelativePath(s.Root))
	}
	for _, p := range sortedKeys(s.Platforms) {
		if err := names.Platform(p); err != nil {
			c.Errorf("platforms", "%v", err)
		}
		check(c, strict.Key("platforms", p), names.RelativePath(s.Platforms[p]))
	}
	for i, f := range s.EntryPoints {
		check(c, strict.Index("entryPoints", i), names.RelativePath(f))
	}
	for i, f := range s.Units {
		field := strict.Index("units", i)
		check(c, field, names.RelativePath(f))
		check(c, field, names.Unit(path.Base(f)))
	}
}

func check(c *strict.Context, field string, err error) {
	if err != nil {
		c.Errorf(field, "%v", err)
	}
}

// ReadSource reads and checks dir/package.yaml. File errors apart, its error is strict.Errors.
func ReadSource(dir *os.Root) (*Source, error) {
	f, err := dir.Open(SourceFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s of %s: %w", SourceFile, dir.Name(), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSourceFile+1))
	if err := closeAfter(f, err); err != nil {
		return nil, fmt.Errorf("cannot read %s of %s: %w", SourceFile, dir.Name(), err)
	}
	if len(data) > maxSourceFile {
		return nil, fmt.Errorf("cannot read %s of %s: it is larger than %d bytes", SourceFile, dir.Name(), maxSourceFile)
	}
	s := &Source{}
	if err := strict.Decode(path.Join(dir.Name(), SourceFile), data, s); err != nil {
		return nil, err
	}
	slices.Sort(s.EntryPoints)
	slices.Sort(s.Units)
	return s, nil
}

// A variant is what one platform gets.
type variant struct {
	// platform is "os/arch", or "" for all.
	platform string
	folders  []string
}

// variants lists what to build, sorted by platform.
func (s *Source) variants() []variant {
	var common []string
	if s.Root != "" {
		common = []string{s.Root}
	}
	if len(s.Platforms) == 0 {
		return []variant{{folders: common}}
	}
	var vs []variant
	for _, p := range sortedKeys(s.Platforms) {
		vs = append(vs, variant{platform: p, folders: append(slices.Clone(common), s.Platforms[p])})
	}
	return vs
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// closeAfter closes c and returns err, or else what closing said.
func closeAfter(c io.Closer, err error) error {
	if cerr := c.Close(); err == nil {
		return cerr
	}
	return err
}
