package host

import "io/fs"

// Observed is the state of everything that the desired state or the inventory
// mentions, and of nothing else. A name that is absent from a map was not
// looked at; planning with it is a programming error.
type Observed struct {
	Packages map[string]PackageState // by package name
	Files    map[string]FileState    // by absolute path
	Units    map[string]UnitState    // by unit name
}

// PackageState is what the store holds of one package.
type PackageState struct {
	// Current is the digest that the current link points at, "" if there is none.
	Current string
	// Versions holds the digests that are completely unpacked.
	Versions map[string]bool
}

// FileState is what lies at one path.
type FileState struct {
	Exists bool
	// Kind is "file", "dir", "symlink" or "other"; only a "file" has the rest.
	Kind         string
	Digest       string // sha256:<hex> of the content
	Size         int64
	Mode         fs.FileMode // permission bits
	Owner, Group string      // names, or decimal ids without a name
	// UID and GID are the same as numbers, for tasks that name owners by number.
	UID, GID uint32
	// Err is set when the path could not be read.
	Err string
}

// UnitMode is the mode of every unit file that the agent writes. Unit files
// belong to the user and group that the agent runs as.
const UnitMode fs.FileMode = 0o644

// UnitState is one unit as its manager and the file system show it.
type UnitState struct {
	// File is the unit file at the place where the agent writes it.
	File FileState
	// Fragment is the path that the manager loaded the unit from: it may be
	// another place, when somebody else's unit has that name.
	Fragment string
	DropIns  []string
	// The manager's own words: LoadState loaded|not-found|masked|bad-setting|error,
	// ActiveState active|inactive|failed|activating|deactivating|reloading,
	// UnitFileState enabled|disabled|static|masked|..., SubState by unit type.
	LoadState, ActiveState, SubState, UnitFileState string
	// NeedDaemonReload is true when files changed since the manager read them.
	NeedDaemonReload bool
	MainPID          uint32
	// ServiceType is the Type= of a service: simple, exec, notify, oneshot, ...
	ServiceType string
	// InvocationID changes at every start; hex.
	InvocationID string
	Restarts     uint32
	// Result is success, exit-code, signal, ... of the last run.
	Result string
}

// Active reports whether the unit runs, or is on its way to.
func (u UnitState) Active() bool {
	switch u.ActiveState {
	case "active", "activating", "reloading":
		return true
	}
	return false
}

// Enabled reports whether the unit starts at boot.
func (u UnitState) Enabled() bool {
	return u.UnitFileState == "enabled" || u.UnitFileState == "enabled-runtime"
}
