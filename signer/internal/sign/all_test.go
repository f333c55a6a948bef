package sign_test

import (
	"maps"
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

// What a signer must not publish, though its keys signed it.
func TestVerifyAllRefuses(t *testing.T) {
	path := trust.TargetPath("fleet", nodeID(0))
	for _, c := range []struct {
		name   string
		reason v1.Reason
		do     func(f *fleet) sign.Files
	}{
		{"a generation that doesn't rise", v1.ReasonRollback, func(f *fleet) sign.Files {
			return f.raw(map[string][]byte{path: append(manifest(nodeID(0), 2), "# other\n"...)})
		}},
		{"a manifest of another node", v1.ReasonWrongNode, func(f *fleet) sign.Files {
			return f.raw(map[string][]byte{path: manifest(nodeID(1), 3)})
		}},
		{"a manifest that doesn't decode", v1.ReasonMalformed, func(f *fleet) sign.Files {
			return f.raw(map[string][]byte{path: []byte("x: 1\n")})
		}},
		{"a lost manifest", v1.ReasonMissing, func(f *fleet) sign.Files {
			files := f.raw(map[string][]byte{path: manifest(nodeID(0), 3)})
			delete(files, "targets/"+path)
			return files
		}},
		{"another root.json", v1.ReasonMixAndMatch, func(f *fleet) sign.Files {
			files := f.raw(nil)
			files["metadata/root.json"] = append(files["metadata/root.json"], ' ')
			return files
		}},
		{"an older state", v1.ReasonRollback, func(f *fleet) sign.Files { return newFleet(f.t, "fleet").files }},
		{"another timestamp of the same version", v1.ReasonRollback, func(f *fleet) sign.Files {
			g := newFleet(f.t, "fleet")
			g.update(g.nodes("fleet", 0, 1, 2), nil, "fleet")
			return g.files
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t, "fleet")
			f.update(f.nodes("fleet", 0, 3, 2), nil, "fleet")
			_, err := trust.VerifyAll(f.root, c.do(f), trust.AllOptions{Now: f.now, Previous: f.files})
			if got := trust.ReasonOf(err); got != c.reason {
				t.Errorf("got %v, want %s", err, c.reason)
			}
		})
	}
}

// raw is what an update would publish, unchecked.
func (f *fleet) raw(changes map[string][]byte) sign.Files {
	f.t.Helper()
	changed, _, err := sign.Update(f.open(), changes, nil, everyday("fleet"), f.now, v1.Expiries{})
	if err != nil {
		f.t.Fatal(err)
	}
	next := maps.Clone(f.files)
	maps.Copy(next, changed)
	return next
}

func TestVerifyAllLooksAtWhatChanged(t *testing.T) {
	f := newFleet(t, "fleet")
	f.update(f.nodes("fleet", 0, sign.MaxInRole+1, 2), nil, "fleet")
	before := f.files
	f.update(f.nodes("fleet", 3, 4, 3), nil, "fleet")
	sum, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now, Previous: before})
	if err != nil || sum.Bins != 1 || sum.Manifests != 1 {
		t.Errorf("%+v %v", sum, err)
	}
	sum, err = trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now, HashesOnly: true})
	if err != nil || sum.Bins != 256 || sum.Manifests != sign.MaxInRole+1 {
		t.Errorf("%+v %v", sum, err)
	}
}
