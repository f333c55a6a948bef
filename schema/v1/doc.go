// Package v1 holds the documents that people, signer and agents exchange, version
// fleet.gpuaas.dev/v1: their types, strict decoding, validation and canonical
// encoding. JSON Schemas of them are in the folder jsonschema.
//
// Flow: people write Fleet, PackagePin, Profile and Node files in the fleet repo; the
// signer decodes and renders them into one NodeManifest a node, and signs
// that; the agent decodes it, asks it for Resources, and answers with a NodeStatus.
//
// # Glossary
//
//   - Fleet: the nodes that one fleet repo describes; fleet.yaml holds what they share.
//   - Fleet repo: the git repository that people change by pull request.
//   - Signed branch: the git branch that holds signed manifests, and nothing that people edit.
//   - Team: owns nodes; a TUF role of its own, with keys and a threshold.
//   - Node: one machine with one agent, known by its id.
//   - Label: a property of a node; profiles select nodes by labels.
//   - Profile: packages and tasks for all nodes that its selector matches.
//   - Value: a scalar with a name that ${values.name} puts into tasks; a node's is stronger than a
//     profile's, and that than the fleet's.
//   - Package: files that are installed and activated as a whole, an OCI artifact;
//     a PackagePin says by which digest.
//   - Digest: sha256:<hex> of an OCI manifest or index; what pins a package.
//   - Task: one typed wish of a manifest, of one of the closed set of kinds (package task).
//   - TaskTemplate: a task as people write it, before interpolation.
//   - Resource: what a task makes a node have: a package, a file, a unit or a service. The
//     planner knows nothing else.
//   - Ref: the name of a resource on its node, "unit/gpuaas-x.service".
//   - NodeManifest: the whole desired state of one node; a TUF target.
//   - Generation: the number of a manifest; rises when its content changes.
//   - NodeStatus: what an agent says of its node: conditions, packages, tasks, trust, last error.
//   - Condition: one aspect of a node, with a status and a Reason.
//   - Reason: a code of a closed set that says why.
//   - Phase: where the agent is in a reconcile.
//
// # Versions
//
// A document of a newer version is refused, never guessed at. Unknown fields are
// errors in every document.
package v1

//go:generate go run ../gen
