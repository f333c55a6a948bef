package sign_test

import (
	"crypto"
	"maps"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

// Every role's keys are exchanged, one after another. A node that saw every state follows,
// so does one that slept through all of them, and the former keys sign no more.
func TestRotate(t *testing.T) {
	for _, size := range []int{3, sign.MaxInRole + 1} {
		f := newFleet(t, "fleet")
		f.update(f.nodes("fleet", 0, size, 2), nil, "fleet")
		_, awake, err := trust.Verify(trust.Input{BootstrapRoot: f.root, Repository: f.files, Now: f.now, Team: "fleet", Node: nodeID(1)})
		if err != nil {
			t.Fatal(err)
		}
		asleep := awake
		at := func(state trust.State) (trust.State, error) {
			_, next, err := trust.Verify(trust.Input{BootstrapRoot: f.root, Stored: state, Repository: f.files, Now: f.now, Team: "fleet", Node: nodeID(1)})
			return next, err
		}
		current := signers("fleet")
		for _, role := range []string{"timestamp", "root", "fleet", "snapshot", "targets", "root"} {
			fresh := key(role + " anew")
			if role == "root" {
				fresh = key(role + " anew" + strings.Repeat("!", len(f.files)))
			}
			old := maps.Clone(current)
			both := maps.Clone(current)
			both[role] = append([]crypto.Signer{fresh}, current[role]...)
			to := sign.Authority{Keys: []crypto.PublicKey{fresh.Public()}, Threshold: 1}
			files, err := sign.Rotate(f.open(), role, to, both, f.now, v1.Expiries{})
			if err != nil {
				t.Fatalf("%s: %v", role, err)
			}
			before := f.files
			f.apply(files, nil)
			if _, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now, Previous: before}); err != nil {
				t.Fatalf("%s: %v", role, err)
			}
			if awake, err = at(awake); err != nil {
				t.Fatalf("%s: a node refuses it: %v", role, err)
			}
			current[role] = []crypto.Signer{fresh}
			if _, err := sign.Rotate(f.open(), role, to, old, f.now, v1.Expiries{}); err == nil {
				t.Errorf("%s: the former key still signs", role)
			}
		}
		if _, err := at(asleep); err != nil {
			t.Errorf("a node that slept refuses it: %v", err)
		}
		if _, err := at(trust.State{}); err != nil {
			t.Errorf("a new node refuses it: %v", err)
		}
	}
}

func TestRotateRefuses(t *testing.T) {
	fresh := key("fresh")
	to := sign.Authority{Keys: []crypto.PublicKey{fresh.Public()}, Threshold: 1}
	for _, c := range []struct {
		name, role string
		to         sign.Authority
		signers    keys.Signers
		want       string
	}{
		{"no root key", "timestamp", to, everyday(), "cannot sign root"},
		{"no new key at hand", "timestamp", to, signers(), "cannot sign timestamp"},
		{"a root that doesn't sign itself", "root", to, signers(), "cannot sign root"},
		{"no targets key", "fleet", to, everyday("fleet"), "cannot sign targets"},
		{"a threshold above the keys", "root", sign.Authority{Keys: to.Keys, Threshold: 2}, signers(), "the threshold is 2 with 1 keys"},
		{"a team that isn't there", "research", to, signers(), `doesn't delegate to team "research"`},
	} {
		f := newFleet(t, "fleet")
		if _, err := sign.Rotate(f.open(), c.role, c.to, c.signers, f.now, v1.Expiries{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
