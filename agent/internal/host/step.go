package host

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/task"
)

// Action is one kind of change. The set is closed; its order is the order in
// which steps run.
type Action int

// The actions, in the order in which they run.
const (
	// StagePackage fetches, verifies and unpacks; nothing on the host behaves otherwise.
	StagePackage Action = iota
	// StopService stops a unit that leaves the manifest or must not run.
	StopService
	// DisableUnit removes a unit from boot.
	DisableUnit
	// RemoveUnit removes an owned unit file.
	RemoveUnit
	// WriteFile writes a File: content, mode, owner.
	WriteFile
	// WriteUnit writes a unit file.
	WriteUnit
	// ActivatePackage swings the current link.
	ActivatePackage
	// DaemonReload makes systemd read unit files; at most one in a plan.
	DaemonReload
	// EnableUnit makes a unit start at boot.
	EnableUnit
	// StartService starts a unit that is not running.
	StartService
	// RestartService restarts a running unit whose inputs changed.
	RestartService
	// AcceptInputs records that a service needs no restart: it was just
	// started by somebody else after its inputs were in place, or is to be stopped.
	AcceptInputs
	// RunAction runs a one-shot restart or reload.
	RunAction
	// RemoveFile removes an owned file.
	RemoveFile
	// RemovePackage removes an owned package, all of its versions and its link.
	RemovePackage
	// ForgetResource drops from the inventory what is gone from the host already.
	ForgetResource
)

var actionNames = [...]string{
	StagePackage: "stage", StopService: "stop", DisableUnit: "disable", RemoveUnit: "remove-unit",
	WriteFile: "write", WriteUnit: "write-unit", ActivatePackage: "activate", DaemonReload: "daemon-reload",
	EnableUnit: "enable", StartService: "start", RestartService: "restart", AcceptInputs: "accept",
	RunAction: "action", RemoveFile: "remove", RemovePackage: "remove-package", ForgetResource: "forget",
}

// String returns the name that plan, the audit log and logs show.
func (a Action) String() string { return actionNames[a] }

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Step is one planned change and the reason for it.
type Step struct {
	Action Action `json:"action"`
	// Ref is the resource (task.Resource.Ref) that it changes; "" for DaemonReload.
	Ref string `json:"resource,omitempty"`
	// Task is the id of the declaring task, if there is one.
	Task string `json:"task,omitempty"`
	// Reason says why, for an operator: "content differs", "no longer in the manifest".
	Reason string `json:"reason"`
	// Drift is true when the host changed, rather than the manifest.
	Drift bool `json:"drift,omitempty"`

	// The operand: exactly one is set for actions on desired resources; removals
	// have only the Ref's name.
	Package *task.Package `json:"-"`
	File    *task.File    `json:"-"`
	Unit    *task.Unit    `json:"-"`
	Service *task.Service `json:"-"`
	// Name is the package name, path or unit name.
	Name string `json:"-"`
	// Inputs is the fingerprint to record with StartService, RestartService, AcceptInputs.
	Inputs string `json:"-"`
	// Invocation is the unit's InvocationID as observed, for RestartService.
	Invocation string `json:"-"`
}

// SortSteps puts steps in the order in which they run: by action, then sockets,
// timers and paths before the services that they start, then name. A socket
// whose service runs already can't be started, and a service that is stopped
// first would be started again by its socket.
func SortSteps(steps []Step) {
	slices.SortStableFunc(steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(triggered(a), triggered(b)), cmp.Compare(a.Ref, b.Ref))
	})
}

func triggered(s Step) int {
	if strings.HasPrefix(s.Ref, "service/") && strings.HasSuffix(s.Ref, ".service") {
		return 1
	}
	return 0
}

// Disruptive reports whether any step changes what runs on the host now.
func Disruptive(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return s.Action != StagePackage && s.Action != AcceptInputs && s.Action != ForgetResource
	})
}
