package task

import (
	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// ArtifactFetch is artifact.fetch: the package is pulled, verified and unpacked,
// and nothing on the host behaves otherwise. Its name must not be one of the
// manifest's packages, which are pulled anyway.
type ArtifactFetch struct {
	// Name of the package on the node: a DNS label.
	Name string `yaml:"name" json:"name"`
	// Ref is the OCI repository with its registry host, without tag or digest.
	Ref string `yaml:"ref" json:"ref"`
	// Digest is "sha256:<64 hex>" of the manifest or index.
	Digest string `yaml:"digest" json:"digest"`
}

// Type implements Spec.
func (ArtifactFetch) Type() string { return "artifact.fetch" }

// Resources implements Spec.
func (a ArtifactFetch) Resources(id string) []Resource {
	return []Resource{Package{Name: a.Name, Repository: a.Ref, Digest: a.Digest, Source: id}}
}

// Validate implements strict's hook.
func (a ArtifactFetch) Validate(c *strict.Context) {
	check(c, "name", names.Label(a.Name))
	check(c, "ref", names.Repository(a.Ref))
	check(c, "digest", names.Digest(a.Digest))
}
