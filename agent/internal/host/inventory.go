package host

import (
	"io/fs"
	"maps"
	"time"
)

// Inventory is what the agent owns on its node: what it made, and so may
// change and remove. A resource is entered before it is made, so that a crash
// never leaves something of ours that we don't know.
type Inventory struct {
	Packages map[string]OwnedPackage `json:"packages"` // by name
	Files    map[string]OwnedFile    `json:"files"`    // by path
	Units    map[string]OwnedUnit    `json:"units"`    // by unit name
	Services map[string]OwnedService `json:"services"` // by unit name
	// Actions holds the one-shots that ran, by task id.
	Actions map[string]time.Time `json:"actions"`
	// PendingActions holds the one-shot restarts that were begun, by task id: the
	// unit's InvocationID before.
	PendingActions map[string]string `json:"pendingActions,omitempty"`
}

// OwnedPackage is a package that the agent installed.
type OwnedPackage struct {
	// Digest is the one that was last activated; "" for staged only.
	Digest string `json:"digest"`
	// Previous is the one before, kept for rollback.
	Previous string `json:"previous,omitempty"`
}

// OwnedFile is a file that the agent wrote.
type OwnedFile struct {
	// Digest is that of the content last written.
	Digest string `json:"digest"`
	// Mode, Owner and Group are what the task asked for then. They tell drift
	// from a changed manifest; nothing else depends on them.
	Mode  fs.FileMode `json:"mode,omitempty"`
	Owner string      `json:"owner,omitempty"`
	Group string      `json:"group,omitempty"`
}

// OwnedUnit is a unit file that the agent wrote.
type OwnedUnit struct {
	Digest string `json:"digest"`
}

// OwnedService is a unit whose state the agent holds.
type OwnedService struct {
	// Inputs is the fingerprint (plan.Inputs) of everything in restartOn at the
	// moment of the last start that the agent caused or accepted. Where it differs
	// from that of the desired state, the service runs with something old.
	Inputs string `json:"inputs"`
	// Enabled is true when the agent enabled the unit.
	Enabled bool `json:"enabled"`
	// Pending is written before a restart and cleared after it, so that a crash
	// in between neither loses the restart nor repeats it.
	Pending *PendingRestart `json:"pending,omitempty"`
}

// PendingRestart is a restart that was begun.
type PendingRestart struct {
	Inputs string `json:"inputs"`
	// Invocation is the unit's InvocationID before. Another one now means that
	// the restart happened.
	Invocation string `json:"invocation"`
}

// NewInventory returns an empty inventory.
func NewInventory() Inventory {
	return Inventory{
		Packages: map[string]OwnedPackage{},
		Files:    map[string]OwnedFile{},
		Units:    map[string]OwnedUnit{},
		Services: map[string]OwnedService{},
		Actions:  map[string]time.Time{},

		PendingActions: map[string]string{},
	}
}

// Clone returns a copy that shares nothing with inv. Nil maps become empty ones.
func (inv Inventory) Clone() Inventory {
	out := NewInventory()
	maps.Copy(out.Packages, inv.Packages)
	maps.Copy(out.Files, inv.Files)
	maps.Copy(out.Units, inv.Units)
	maps.Copy(out.Services, inv.Services)
	maps.Copy(out.Actions, inv.Actions)
	maps.Copy(out.PendingActions, inv.PendingActions)
	for name, s := range out.Services {
		if s.Pending != nil {
			pending := *s.Pending
			s.Pending = &pending
			out.Services[name] = s
		}
	}
	return out
}
