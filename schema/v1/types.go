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
	APIVersion string `yaml:"apiVersion" json:"apiVersion"`
	Kind       string `yaml:"kind" json:"kind"`
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
	// DefaultInstallRoot. ${packages.<name>.path} starts with it.
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
	Name string `yaml:"name" json:"name"`
	// Threshold is how many of the team's keys must sign; default 1.
	Threshold int `yaml:"threshold,omitempty" json:"threshold,omitempty"`
}

// Expiries are how long freshly signed metadata is good for. Zero means the
// default of trust.md: root and targets 365d, teams and snapshot 90d, timestamp 3d.
type Expiries struct {
	Root      Duration `yaml:"root,omitempty" json:"root,omitempty"`
	Targets   Duration `yaml:"targets,omitempty" json:"targets,omitempty"`
	Team      Duration `yaml:"team,omitempty" json:"team,omitempty"`
	Snapshot  Duration `yaml:"snapshot,omitempty" json:"snapshot,omitempty"`
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
	Name     string `yaml:"name" json:"name"`
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
	Name     string   `yaml:"name" json:"name"`
	Selector Selector `yaml:"selector,omitempty" json:"selector,omitzero"`
	Values   Values   `yaml:"values,omitempty" json:"values,omitempty"`
	// Packages are names of PackagePins.
	Packages []string       `yaml:"packages,omitempty" json:"packages,omitempty"`
	Tasks    []TaskTemplate `yaml:"tasks,omitempty" json:"tasks,omitempty"`
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
	Team     string            `yaml:"team,omitempty" json:"team,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Values   Values            `yaml:"values,omitempty" json:"values,omitempty"`
	Packages []string          `yaml:"packages,omitempty" json:"packages,omitempty"`
	// Tasks are added to those of the profiles; one with a profile's task id replaces it.
	Tasks []TaskTemplate `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// DefaultTeam is the team of a node, and of an agent, that names none.
const DefaultTeam = "fleet"

// NodeManifest is the whole desired state of one node: a TUF target.
type NodeManifest struct {
	TypeMeta `yaml:",inline"`
	Node     string `yaml:"node" json:"node"`
	// Generation rises whenever the content changes and never falls.
	Generation int64             `yaml:"generation" json:"generation"`
	Source     ManifestSource    `yaml:"source" json:"source"`
	Packages   []ManifestPackage `yaml:"packages,omitempty" json:"packages,omitempty"`
	Tasks      []Task            `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// ManifestSource is the commit of the fleet repo that last changed this manifest.
type ManifestSource struct {
	Repo   string `yaml:"repo" json:"repo"`
	Commit string `yaml:"commit" json:"commit"`
}

// ManifestPackage is one package to install and activate.
type ManifestPackage struct {
	Name   string `yaml:"name" json:"name"`
	Ref    string `yaml:"ref" json:"ref"`
	Digest string `yaml:"digest" json:"digest"`
}

// Task is one typed task. With is decoded by Type.
type Task struct {
	ID   string    `yaml:"id" json:"id"`
	Type string    `yaml:"type" json:"type"`
	With task.Spec `yaml:"with" json:"with"`
}

// NodeStatus is what an agent says of its node. Times are RFC 3339 UTC.
type NodeStatus struct {
	TypeMeta     `yaml:",inline"`
	Node         string    `yaml:"node" json:"node"`
	AgentVersion string    `yaml:"agentVersion" json:"agentVersion"`
	Updated      time.Time `yaml:"updated" json:"updated"`
	// SourceCommit is the commit of the signed branch that was last verified.
	SourceCommit string `yaml:"sourceCommit,omitempty" json:"sourceCommit,omitempty"`
	// FleetCommit is the fleet repo's commit that the manifest was rendered from.
	FleetCommit        string          `yaml:"fleetCommit,omitempty" json:"fleetCommit,omitempty"`
	DesiredGeneration  int64           `yaml:"desiredGeneration" json:"desiredGeneration"`
	ObservedGeneration int64           `yaml:"observedGeneration" json:"observedGeneration"`
	Phase              string          `yaml:"phase" json:"phase"`
	Conditions         []Condition     `yaml:"conditions" json:"conditions"`
	Packages           []ElementStatus `yaml:"packages,omitempty" json:"packages,omitempty"`
	Tasks              []ElementStatus `yaml:"tasks,omitempty" json:"tasks,omitempty"`
	Trust              *TrustStatus    `yaml:"trust,omitempty" json:"trust,omitempty"`
	LastError          *StatusError    `yaml:"lastError,omitempty" json:"lastError,omitempty"`
	// Repairs counts drift that was repaired since the agent started.
	Repairs int64 `yaml:"repairs" json:"repairs"`
}

// Condition is one aspect of a node. Reason is from the closed set in reasons.go.
type Condition struct {
	Type    ConditionType   `yaml:"type" json:"type"`
	Status  ConditionStatus `yaml:"status" json:"status"`
	Reason  Reason          `yaml:"reason" json:"reason"`
	Message string          `yaml:"message,omitempty" json:"message,omitempty"`
	Since   time.Time       `yaml:"since" json:"since"`
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
	Digest  string `yaml:"digest,omitempty" json:"digest,omitempty"`
	Message string `yaml:"message,omitempty" json:"message,omitempty"`
}

// TrustStatus is what the node believes, and until when.
type TrustStatus struct {
	RootVersion int64                `yaml:"rootVersion" json:"rootVersion"`
	Versions    map[string]int64     `yaml:"versions,omitempty" json:"versions,omitempty"`
	Expires     map[string]time.Time `yaml:"expires,omitempty" json:"expires,omitempty"`
	// KeyIDs are the accepted key ids per role.
	KeyIDs map[string][]string `yaml:"keyIDs,omitempty" json:"keyIDs,omitempty"`
}

// StatusError is the last thing that went wrong.
type StatusError struct {
	// Phase is the part of the reconcile in which it happened, such as poll or apply.
	Phase string `yaml:"phase" json:"phase"`
	// Component is the agent's part that failed.
	Component string    `yaml:"component" json:"component"`
	Element   string    `yaml:"element,omitempty" json:"element,omitempty"`
	Category  Reason    `yaml:"category" json:"category"`
	Message   string    `yaml:"message" json:"message"`
	Time      time.Time `yaml:"time" json:"time"`
}
