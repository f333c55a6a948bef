package v1

import (
	"time"

	"github.com/gpuaas/node-agent/schema/task"
)

// APIVersion is the version that every document of this package carries.
const APIVersion = "fleet.gpuaas.dev/v1"

// The kinds of document.
const (
	KindFleet        = "Fleet"
	KindPackage      = "Package"
	KindProfile      = "Profile"
	KindNode         = "Node"
	KindNodeManifest = "NodeManifest"
	KindNodeStatus   = "NodeStatus"
)

// TypeMeta opens every document.
type TypeMeta struct {
	// APIVersion is the version of the format.
	APIVersion string `yaml:"apiVersion" json:"apiVersion"`
	// Kind of document.
	Kind string `yaml:"kind" json:"kind"`
}

// Fleet is fleet.yaml, the one file at the root of a fleet repo.
type Fleet struct {
	TypeMeta `yaml:",inline"`
	// Name is that of the fleet: a DNS label.
	Name string `yaml:"name" json:"name"`
	// Environment tells fleets of one owner apart: dev, staging, production.
	Environment string `yaml:"environment" json:"environment"`
	// Registries lists every registry host that packages may come from.
	Registries []Registry `yaml:"registries" json:"registries"`
	// Teams own nodes; each is a TUF role of its own. Default: one team, "fleet".
	Teams []Team `yaml:"teams,omitempty" json:"teams,omitempty"`
	// Expiries of the signed metadata, per TUF role.
	Expiries Expiries `yaml:"expiries,omitempty" json:"expiries,omitzero"`
	// Signed says where signed state goes.
	Signed SignedBranch `yaml:"signed,omitempty" json:"signed,omitzero"`
	// InstallRoot is the folder on the nodes that holds packages; default
	// /opt/gpuaas/packages. ${packages.<name>.path} starts with it.
	InstallRoot string `yaml:"installRoot,omitempty" json:"installRoot,omitempty"`
	// Values are the weakest source of ${values.x}.
	Values Values `yaml:"values,omitempty" json:"values,omitempty"`
}

// DefaultInstallRoot is where packages live on a node unless the fleet says otherwise.
const DefaultInstallRoot = "/opt/gpuaas/packages"

// Registry is one allowed OCI registry.
type Registry struct {
	// Host is "name" or "name:port".
	Host string `yaml:"host" json:"host"`
	// PlainHTTP is for registries on loopback only.
	PlainHTTP bool `yaml:"plainHTTP,omitempty" json:"plainHTTP,omitempty"`
}

// Team owns nodes. Name becomes a TUF role name: [a-z0-9-], at most 40 characters.
type Team struct {
	// Name is a-z, 0-9 and -, and no TUF role of its own such as root.
	Name string `yaml:"name" json:"name"`
	// Threshold is how many of the team's keys must sign; default 1.
	Threshold int `yaml:"threshold,omitempty" json:"threshold,omitempty"`
}

// Expiries are how long freshly signed metadata is good for. Zero means the
// default of trust.md: root and targets 365d, teams and snapshot 90d, timestamp 3d.
type Expiries struct {
	// Root role: the keys of every role; default 365d.
	Root Duration `yaml:"root,omitempty" json:"root,omitempty"`
	// Targets role: the delegations to teams; default 365d.
	Targets Duration `yaml:"targets,omitempty" json:"targets,omitempty"`
	// Team roles: the manifests; default 90d.
	Team Duration `yaml:"team,omitempty" json:"team,omitempty"`
	// Snapshot role: which versions belong together; default 90d.
	Snapshot Duration `yaml:"snapshot,omitempty" json:"snapshot,omitempty"`
	// Timestamp role: how old the newest state may be; default 3d.
	Timestamp Duration `yaml:"timestamp,omitempty" json:"timestamp,omitempty"`
}

// SignedBranch is where signed state is published.
type SignedBranch struct {
	// Branch defaults to "signed".
	Branch string `yaml:"branch,omitempty" json:"branch,omitempty"`
}

// PackagePin is packages/<name>.yaml: one package at one digest.
type PackagePin struct {
	TypeMeta `yaml:",inline"`
	// Name is that of the file, and of the package's folder on nodes: a DNS label.
	Name string `yaml:"name" json:"name"`
	// Ref is the OCI repository with its registry host, without tag or digest.
	Ref string `yaml:"ref" json:"ref"`
	// Digest is "sha256:<64 hex>" of the manifest or index.
	Digest string `yaml:"digest" json:"digest"`
	// Version is for people; nothing decides by it.
	Version string `yaml:"version,omitempty" json:"version,omitempty"`
	// Platforms are "os/arch" pairs that the digest serves.
	Platforms []string `yaml:"platforms,omitempty" json:"platforms,omitempty"`
}

// Profile is profiles/<name>.yaml: what nodes with certain labels run.
type Profile struct {
	TypeMeta `yaml:",inline"`
	// Name is that of the file: a DNS label. Profiles are applied in the order of their names.
	Name string `yaml:"name" json:"name"`
	// Selector says which nodes; without one, all.
	Selector Selector `yaml:"selector,omitempty" json:"selector,omitzero"`
	// Values are stronger than those of the fleet and weaker than those of a node.
	Values Values `yaml:"values,omitempty" json:"values,omitempty"`
	// Packages are names of files in packages/, without .yaml.
	Packages []string `yaml:"packages,omitempty" json:"packages,omitempty"`
	// Tasks of the nodes, in this order.
	Tasks []TaskTemplate `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// Selector matches nodes. The empty selector matches every node.
type Selector struct {
	// MatchLabels must all be present with these values.
	MatchLabels map[string]string `yaml:"matchLabels,omitempty" json:"matchLabels,omitempty"`
}

// Node is one file below nodes/.
type Node struct {
	TypeMeta `yaml:",inline"`
	// ID is the node's identity: [a-z0-9] then [a-z0-9.-], at most 63 characters.
	ID string `yaml:"id" json:"id"`
	// Team defaults to "fleet".
	Team string `yaml:"team,omitempty" json:"team,omitempty"`
	// Labels choose the node's profiles.
	Labels map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	// Values are the strongest source of ${values.x}.
	Values Values `yaml:"values,omitempty" json:"values,omitempty"`
	// Packages are added to those of the profiles.
	Packages []string `yaml:"packages,omitempty" json:"packages,omitempty"`
	// Tasks are added to those of the profiles; one with a profile's task id replaces it.
	Tasks []TaskTemplate `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// DefaultTeam is the team of a node, and of an agent, that names none.
const DefaultTeam = "fleet"

// NodeManifest is the whole desired state of one node: a TUF target.
type NodeManifest struct {
	TypeMeta `yaml:",inline"`
	// Node is the id of the node that this is for; no other acts on it.
	Node string `yaml:"node" json:"node"`
	// Generation rises whenever the content changes and never falls.
	Generation int64 `yaml:"generation" json:"generation"`
	// Source says where the content comes from.
	Source ManifestSource `yaml:"source" json:"source"`
	// Packages to install and activate.
	Packages []ManifestPackage `yaml:"packages,omitempty" json:"packages,omitempty"`
	// Tasks to hold true.
	Tasks []Task `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// ManifestSource is the commit of the fleet repo that last changed this manifest.
type ManifestSource struct {
	// Repo is the URL of the fleet repo, without credentials.
	Repo string `yaml:"repo" json:"repo"`
	// Commit is a full commit id.
	Commit string `yaml:"commit" json:"commit"`
}

// ManifestPackage is one package to install and activate.
type ManifestPackage struct {
	// Name of the package on the node.
	Name string `yaml:"name" json:"name"`
	// Ref is the OCI repository with its registry host, without tag or digest.
	Ref string `yaml:"ref" json:"ref"`
	// Digest is "sha256:<64 hex>" of the manifest or index.
	Digest string `yaml:"digest" json:"digest"`
}

// Task is one typed task. With is decoded by Type.
type Task struct {
	// ID is unique in the manifest; other tasks refer to it.
	ID string `yaml:"id" json:"id"`
	// Type is one of task.Kinds.
	Type string `yaml:"type" json:"type"`
	// With holds the fields of that kind.
	With task.Spec `yaml:"with" json:"with"`
}

// NodeStatus is what an agent says of its node. Times are RFC 3339 UTC.
type NodeStatus struct {
	TypeMeta `yaml:",inline"`
	// Node is the node's id.
	Node string `yaml:"node" json:"node"`
	// AgentVersion is that of the agent's binary.
	AgentVersion string `yaml:"agentVersion" json:"agentVersion"`
	// Updated is when this document was written.
	Updated time.Time `yaml:"updated" json:"updated"`
	// SourceCommit is the commit of the signed branch that was last verified.
	SourceCommit string `yaml:"sourceCommit,omitempty" json:"sourceCommit,omitempty"`
	// FleetCommit is the fleet repo's commit that the manifest was rendered from.
	FleetCommit string `yaml:"fleetCommit,omitempty" json:"fleetCommit,omitempty"`
	// DesiredGeneration is that of the newest verified manifest; 0 before the first.
	DesiredGeneration int64 `yaml:"desiredGeneration" json:"desiredGeneration"`
	// ObservedGeneration is that of the manifest which the host is like; 0 before the first.
	ObservedGeneration int64 `yaml:"observedGeneration" json:"observedGeneration"`
	// Phase is where the agent is in a reconcile: one of Phases.
	Phase string `yaml:"phase" json:"phase"`
	// Conditions of the node, one a type.
	Conditions []Condition `yaml:"conditions" json:"conditions"`
	// Packages of the manifest.
	Packages []ElementStatus `yaml:"packages,omitempty" json:"packages,omitempty"`
	// Tasks of the manifest.
	Tasks []ElementStatus `yaml:"tasks,omitempty" json:"tasks,omitempty"`
	// Trust is what the node believes, once something was verified.
	Trust *TrustStatus `yaml:"trust,omitempty" json:"trust,omitempty"`
	// LastError is the last thing that went wrong and wasn't put right since.
	LastError *StatusError `yaml:"lastError,omitempty" json:"lastError,omitempty"`
	// Repairs counts drift that was repaired since the agent started.
	Repairs int64 `yaml:"repairs" json:"repairs"`
}

// Condition is one aspect of a node. Reason is from the closed set in reasons.go.
type Condition struct {
	// Type says which aspect.
	Type ConditionType `yaml:"type" json:"type"`
	// Status says whether it holds.
	Status ConditionStatus `yaml:"status" json:"status"`
	// Reason says why, for programs.
	Reason Reason `yaml:"reason" json:"reason"`
	// Message says why, for people.
	Message string `yaml:"message,omitempty" json:"message,omitempty"`
	// Since is when Status became what it is.
	Since time.Time `yaml:"since" json:"since"`
}

// ElementStatus is the state of one package or task.
type ElementStatus struct {
	// Name is the package's name or the task's id.
	Name string `yaml:"name" json:"name"`
	// Type is the task's kind; empty for a package.
	Type string `yaml:"type,omitempty" json:"type,omitempty"`
	// State is one of the ElementStates.
	State ElementState `yaml:"state" json:"state"`
	// Digest is the active digest of a package.
	Digest string `yaml:"digest,omitempty" json:"digest,omitempty"`
	// Message says more, for people.
	Message string `yaml:"message,omitempty" json:"message,omitempty"`
}

// TrustStatus is what the node believes, and until when.
type TrustStatus struct {
	// RootVersion is that of the newest root metadata.
	RootVersion int64 `yaml:"rootVersion" json:"rootVersion"`
	// Versions are those of the metadata, per role.
	Versions map[string]int64 `yaml:"versions,omitempty" json:"versions,omitempty"`
	// Expires is until when the metadata is good, per role.
	Expires map[string]time.Time `yaml:"expires,omitempty" json:"expires,omitempty"`
	// KeyIDs are the accepted key ids per role.
	KeyIDs map[string][]string `yaml:"keyIDs,omitempty" json:"keyIDs,omitempty"`
}

// StatusError is the last thing that went wrong.
type StatusError struct {
	// Phase is the part of the reconcile in which it happened, such as poll or apply.
	Phase string `yaml:"phase" json:"phase"`
	// Component is the agent's part that failed.
	Component string `yaml:"component" json:"component"`
	// Element is the Ref of the resource, or a URL.
	Element string `yaml:"element,omitempty" json:"element,omitempty"`
	// Category is the reason, for programs.
	Category Reason `yaml:"category" json:"category"`
	// Message says what went wrong and what to do, for people.
	Message string `yaml:"message" json:"message"`
	// Time is when it happened last.
	Time time.Time `yaml:"time" json:"time"`
}
