package v1

// ConditionType names one aspect of a node's state.
type ConditionType string

// The conditions, in the order in which status shows them.
const (
	Verified ConditionType = "Verified" // the newest fetched state passed TUF verification
	Fresh    ConditionType = "Fresh"    // metadata is unexpired and the source was reached lately
	Staged   ConditionType = "Staged"   // every package of the manifest is on the node
	Applied  ConditionType = "Applied"  // the host is as the manifest says
	Healthy  ConditionType = "Healthy"  // services passed their health checks
	Drifted  ConditionType = "Drifted"  // the host differs from what was applied
)

// ConditionStatus is True, False or Unknown.
type ConditionStatus string

// The statuses.
const (
	True    ConditionStatus = "True"
	False   ConditionStatus = "False"
	Unknown ConditionStatus = "Unknown"
)

// ElementState is the state of one package or task.
type ElementState string

// The element states.
const (
	ElementPending ElementState = "Pending"
	ElementCurrent ElementState = "Current"
	ElementFailed  ElementState = "Failed"
	ElementDrifted ElementState = "Drifted"
)

// Reason is a closed code: why a condition is as it is, or which kind of
// error happened. docs/operations.md has an entry for each.
type Reason string

// The reasons. Verification failures are those of TUF's specification, section 5.
const (
	ReasonOK      Reason = "OK"
	ReasonPending Reason = "Pending"

	// Source.
	ReasonSourceUnreachable Reason = "SourceUnreachable"
	ReasonSourceEmpty       Reason = "SourceEmpty"  // branch missing, or without metadata
	ReasonSourceLimits      Reason = "SourceLimits" // answer over a stated limit

	// Verification.
	ReasonUnsigned       Reason = "Unsigned"       // too few valid signatures
	ReasonRollback       Reason = "Rollback"       // a version or generation fell
	ReasonExpired        Reason = "Expired"        // metadata past its expiry
	ReasonMixAndMatch    Reason = "MixAndMatch"    // hash, length or version differs from what is signed
	ReasonMissing        Reason = "Missing"        // signed state names a file that isn't there
	ReasonMalformed      Reason = "Malformed"      // metadata or manifest that can't be decoded
	ReasonNotDelegated   Reason = "NotDelegated"   // no role may sign this path
	ReasonNoManifest     Reason = "NoManifest"     // no manifest for this node
	ReasonWrongNode      Reason = "WrongNode"      // the manifest names another node
	ReasonBootstrapRoot  Reason = "BootstrapRoot"  // the node's own root.json is missing or bad
	ReasonStateCorrupt   Reason = "StateCorrupt"   // stored state can't be read; set aside
	ReasonUnknownVersion Reason = "UnknownVersion" // written by a newer version

	// Guard and planning.
	ReasonGuard    Reason = "GuardRefused"
	ReasonConflict Reason = "Conflict" // exists and isn't owned by the agent

	// Staging.
	ReasonRegistryUnreachable Reason = "RegistryUnreachable"
	ReasonPackageNotFound     Reason = "PackageNotFound"
	ReasonDigestMismatch      Reason = "DigestMismatch"
	ReasonPackageInvalid      Reason = "PackageInvalid"
	ReasonPlatform            Reason = "PlatformUnsupported"
	ReasonNoSpace             Reason = "NoSpace"

	// Applying.
	ReasonNotWritable     Reason = "NotWritable"
	ReasonSystemdMissing  Reason = "SystemdUnreachable"
	ReasonUnitInvalid     Reason = "UnitInvalid"
	ReasonJobFailed       Reason = "JobFailed"
	ReasonUnhealthy       Reason = "Unhealthy"
	ReasonHeld            Reason = "Held" // failed before; waits for another manifest
	ReasonRolledBack      Reason = "RolledBack"
	ReasonDrift           Reason = "Drift"
	ReasonSuspended       Reason = "Suspended"
	ReasonConfig          Reason = "Config"
	ReasonAlreadyRunning  Reason = "AlreadyRunning"
	ReasonInternal        Reason = "Internal"
	ReasonNotYetConverged Reason = "NotYetConverged"
)

// The closed sets, in the order in which the documentation lists them.

// ConditionTypes returns the types of condition, in the order in which status shows them.
func ConditionTypes() []ConditionType {
	return []ConditionType{Verified, Fresh, Staged, Applied, Healthy, Drifted}
}

// ConditionStatuses returns what a condition's status may be.
func ConditionStatuses() []ConditionStatus { return []ConditionStatus{True, False, Unknown} }

// ElementStates returns the states of packages and tasks.
func ElementStates() []ElementState {
	return []ElementState{ElementPending, ElementCurrent, ElementFailed, ElementDrifted}
}

// Phases returns the names of the agent's phases, in the order of a reconcile.
func Phases() []string {
	return []string{"Idle", "Verified", "Planned", "Staged", "Applying", "Probation", "Committed", "RolledBack", "Held"}
}

// Reasons returns every reason.
func Reasons() []Reason {
	return []Reason{
		ReasonOK, ReasonPending,
		ReasonSourceUnreachable, ReasonSourceEmpty, ReasonSourceLimits,
		ReasonUnsigned, ReasonRollback, ReasonExpired, ReasonMixAndMatch, ReasonMissing, ReasonMalformed,
		ReasonNotDelegated, ReasonNoManifest, ReasonWrongNode, ReasonBootstrapRoot, ReasonStateCorrupt, ReasonUnknownVersion,
		ReasonGuard, ReasonConflict,
		ReasonRegistryUnreachable, ReasonPackageNotFound, ReasonDigestMismatch, ReasonPackageInvalid, ReasonPlatform, ReasonNoSpace,
		ReasonNotWritable, ReasonSystemdMissing, ReasonUnitInvalid, ReasonJobFailed, ReasonUnhealthy, ReasonHeld,
		ReasonRolledBack, ReasonDrift, ReasonSuspended, ReasonConfig, ReasonAlreadyRunning, ReasonInternal, ReasonNotYetConverged,
	}
}
