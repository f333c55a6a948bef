package task

import (
	"io/fs"
	"time"
)

// A Resource is one thing that a node must have: a Package, a File, a Unit or
// a Service. Tasks are what people write; resources are what the planner
// compares with what it observes. The set is closed: no other type may
// implement Resource.
type Resource interface {
	// Ref names the resource on its node, "kind/name": "package/node-exporter",
	// "file//etc/gpuaas/x.env", "unit/gpuaas-x.service", "service/gpuaas-x.service",
	// "action/restart-once" for a one-shot, by its task.
	// Two resources of one manifest never share a Ref.
	Ref() string
	// Task is the id of the task that declared it, or "" for an entry of the
	// manifest's packages list.
	Task() string

	resource()
}

// Package is an OCI artifact, pinned by digest, unpacked below the node's
// package root.
type Package struct {
	Name string
	// Repository is the OCI repository, registry host included, no tag.
	Repository string
	// Digest is that of the manifest or image index: "sha256:<64 hex>".
	Digest string
	// Activate is false for artifact.fetch, which only stages.
	Activate bool
	// Source is the declaring task, if any.
	Source string
}

// File is a regular file with exact content, mode and owner.
type File struct {
	Path    string
	Content []byte
	Mode    fs.FileMode // permission bits only
	// Owner and Group are names or decimal ids; empty means those that the
	// agent runs as.
	Owner, Group string
	// Adopt lets the agent take over a file that exists and that it doesn't own.
	Adopt  bool
	Source string
}

// Unit is a systemd unit file. Its content is in the manifest, or in a file of
// a package of the same manifest, in which case Content is nil until the
// package is staged and somebody resolved it.
type Unit struct {
	Name    string
	Content []byte
	// Package and File say where the content comes from when it isn't inline:
	// the package's name and a slash-separated path inside it.
	Package, File string
	Adopt         bool
	Source        string
}

// Service is the wanted state of a unit, whoever wrote its file.
type Service struct {
	Unit string
	// State is the state to hold, or empty when Action is set.
	State State
	// Enabled is nil when the manifest leaves enablement alone.
	Enabled *bool
	// Action is a one-shot, run exactly once per task id.
	Action Action
	// RestartOn holds the Refs of the resources whose change restarts the unit.
	RestartOn []string
	Health    *Health
	Source    string
}

// State is what service_control can hold a unit in.
type State string

// The states.
const (
	Running State = "running"
	Stopped State = "stopped"
)

// Action is what service_control can do once.
type Action string

// The actions.
const (
	Restart Action = "restart"
	Reload  Action = "reload"
)

// Health says when a service that was just changed counts as good.
type Health struct {
	// StableFor is how long the unit must stay active, with the same main
	// process, and every check must hold, without a break.
	StableFor time.Duration
	// Timeout bounds the whole probation.
	Timeout time.Duration
	// HTTPURL is fetched with GET; 2xx passes. Empty means no such check.
	HTTPURL string
	// TCPAddress ("host:port") must accept a connection. Empty means no such check.
	TCPAddress string
}

// Ref implements Resource.
func (p Package) Ref() string { return PackageRef(p.Name) }

// Ref implements Resource.
func (f File) Ref() string { return "file/" + f.Path }

// Ref implements Resource.
func (u Unit) Ref() string { return "unit/" + u.Name }

// Ref implements Resource. A one-shot has a name of its own, "action/<task id>",
// because a unit may have both a state and one-shots.
func (s Service) Ref() string {
	if s.Action != "" {
		return "action/" + s.Source
	}
	return "service/" + s.Unit
}

// PackageRef is the Ref of the package with that name.
func PackageRef(name string) string { return "package/" + name }

// Task implements Resource.
func (p Package) Task() string { return p.Source }

// Task implements Resource.
func (f File) Task() string { return f.Source }

// Task implements Resource.
func (u Unit) Task() string { return u.Source }

// Task implements Resource.
func (s Service) Task() string { return s.Source }

func (Package) resource() {}
func (File) resource()    {}
func (Unit) resource()    {}
func (Service) resource() {}
