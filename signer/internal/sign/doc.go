// Package sign writes the signed branch's TUF metadata.
//
//	Init(authorities, keys)                       -> the first files of a branch
//	Open(bootstrap root, what is published)       -> Base, verified
//	Update(Base, changed and removed manifests)   -> the files that changed
//
// It is pure: bytes, keys and a time in, bytes out; the same input gives the same
// bytes. Only what a change concerns is parsed and signed again: the team's role,
// or the one bin of it, snapshot and timestamp. A team that grows past MaxInRole manifests
// is moved to 256 hash bins, and never back.
//
// A Base is verified from the bootstrap root on, and so is each role before it is
// extended: else whoever can push to the branch could slip a manifest in and have it signed.
package sign
