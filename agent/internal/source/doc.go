// Package source watches one branch of a git repository and hands out, for each
// new commit, the bytes of the few files that a node needs. It believes nothing
// and parses no file; verification is schema/trust's.
//
// Parties: a git server (HTTP, HTTPS, SSH) or a repository on this machine;
// Source, in the agent; and a child process of the same binary (RunChild),
// which does what needs memory or reads much from strangers.
//
// Flow of a Poll: over HTTP one ls-refs request, in this process, tells whether
// the branch has moved, and nothing more is done where it hasn't. Otherwise the
// child gets the objects of the new commit that lead to the wanted files:
// the commit, the trees on the way, the files. It keeps no clone. What it has
// from the last time comes in with the request and goes out with the answer as
// one small pack, which Source keeps in RepoDir; when that is lost or damaged
// everything is fetched again, and a branch that was forced, orphaned or
// squashed is like any other. The disk use is that of the wanted files. See
// docs/adr for why.
//
// From a server that sends single objects (protocol version 2 with filters, as
// the forges have) the costs depend on the depth of the wanted paths and not on
// the size of the fleet. From any other the difference between the two commits
// is fetched, the first time the whole tree, of which only the wanted files are
// kept.
package source
