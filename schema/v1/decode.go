package v1

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
)

// Each Decode function reads one YAML or JSON document of its kind, at most
// strict.MaxSize bytes. file names the source in errors, which are
// strict.Errors: all that is wrong, with positions. What comes back without an
// error is valid.

// DecodeFleet reads fleet.yaml. Defaults are not filled in; see Fleet.WithDefaults.
func DecodeFleet(file string, data []byte) (Fleet, error) { return decode[Fleet](file, data) }

// DecodePackage reads packages/<name>.yaml.
func DecodePackage(file string, data []byte) (PackagePin, error) {
	return decode[PackagePin](file, data)
}

// DecodeProfile reads profiles/<name>.yaml. Its tasks are checked as far as
// that can be done before interpolation.
func DecodeProfile(file string, data []byte) (Profile, error) { return decode[Profile](file, data) }

// DecodeNode reads a file below nodes/. Its tasks are checked as those of a profile.
func DecodeNode(file string, data []byte) (Node, error) { return decode[Node](file, data) }

// DecodeManifest reads a node's manifest, whose Resources are then without error.
func DecodeManifest(file string, data []byte) (NodeManifest, error) {
	return decode[NodeManifest](file, data)
}

// DecodeStatus reads a node's status, as YAML or JSON.
func DecodeStatus(file string, data []byte) (NodeStatus, error) {
	return decode[NodeStatus](file, data)
}

func decode[T any](file string, data []byte) (T, error) {
	var out T
	if err := strict.Decode(file, data, &out); err != nil {
		var zero T
		return zero, err
	}
	return out, nil
}

// Kinds returns the kinds of document, in the order of the glossary.
func Kinds() []string {
	return []string{KindFleet, KindPackage, KindProfile, KindNode, KindNodeManifest, KindNodeStatus}
}

// Meta returns the TypeMeta of a document of that kind.
func Meta(kind string) TypeMeta { return TypeMeta{APIVersion: APIVersion, Kind: kind} }

// Accept implements strict's hook.
func (*Fleet) Accept(c *strict.Context) bool { return accept(c, KindFleet) }

// Accept implements strict's hook.
func (*PackagePin) Accept(c *strict.Context) bool { return accept(c, KindPackage) }

// Accept implements strict's hook.
func (*Profile) Accept(c *strict.Context) bool { return accept(c, KindProfile) }

// Accept implements strict's hook.
func (*Node) Accept(c *strict.Context) bool { return accept(c, KindNode) }

// Accept implements strict's hook.
func (*NodeManifest) Accept(c *strict.Context) bool { return accept(c, KindNodeManifest) }

// Accept implements strict's hook.
func (*NodeStatus) Accept(c *strict.Context) bool { return accept(c, KindNodeStatus) }

var versionText = regexp.MustCompile(`^v([1-9][0-9]{0,8})$`)

// accept refuses another version or kind before its fields are looked at: they
// would only make a long list of errors beside the point.
func accept(c *strict.Context, kind string) bool {
	version, found := c.Value("apiVersion"), c.Value("kind")
	if version == nil || found == nil {
		return true // strict says what is missing
	}
	if err := checkVersion(version.Value); err != nil {
		c.Errorf("apiVersion", "%v", err)
		return false
	}
	if found.Value != kind {
		c.Errorf("kind", "found %q; allowed here is %s", found.Value, kind)
		return false
	}
	return true
}

// checkVersion accepts this version, and tells a newer one from nonsense.
func checkVersion(s string) error {
	if s == APIVersion {
		return nil
	}
	group, known, _ := strings.Cut(APIVersion, "/")
	if version, ok := strings.CutPrefix(s, group+"/"); ok {
		if m := versionText.FindStringSubmatch(version); m != nil {
			newer, _ := strconv.Atoi(m[1])
			mine, _ := strconv.Atoi(strings.TrimPrefix(known, "v"))
			if newer > mine {
				return fmt.Errorf("this file is %s; this binary knows %s: upgrade it", s, known)
			}
		}
	}
	return fmt.Errorf("found %q; allowed is %s", s, APIVersion)
}
