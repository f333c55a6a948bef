// Package trust decides what a node believes. It verifies the signed branch by
// the client workflow of The Update Framework's specification, section 5
// (https://theupdateframework.github.io/specification/), and answers with the
// one manifest that the release owners signed for one node.
//
// It is pure: bytes and times in, values out. It opens no file, no socket and no
// clock, so the agent (on what it fetched), the agent after a restart (on what it
// stored) and the signer (on what it is about to publish) run the same code.
//
// # Flow of Verify
//
//	bootstrap root -> stored roots -> repository's N.root.json -> timestamp -> snapshot
//	  -> targets -> the team's role -> (one of its hash bins) -> manifest
//
// A root is kept in the new State as soon as it verified. Everything else counts
// together or not at all: the floor and the stored files move only when the
// manifest at the end of the chain verified too.
//
// # Words
//
//   - role: who may sign one metadata file. root, targets, snapshot and timestamp
//     are TUF's own; each team is a delegated role of its name.
//   - bins: a team of many nodes spreads its manifests over 256 succinct hash bins
//     (TAP 15), roles "<team>-bin-00" to "<team>-bin-ff".
//   - floor: the highest versions and generation that this node ever accepted.
//     Lower ones are refused. Only taking away a key of the timestamp role resets it, which
//     is how a fleet recovers from an attacker who signed absurdly high versions.
//   - reference time: the latest of now, the time last seen and the build time.
//     A clock that was set back can't un-expire anything.
//
// # Layout of the signed branch
//
//	metadata/root.json N.root.json timestamp.json snapshot.json targets.json <role>.json
//	targets/nodes/<team>/<hh>/<node>.yaml
//
// hh are the first two hex digits of the SHA-256 of the node's id.
package trust
