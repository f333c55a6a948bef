// Package publish puts signed states into a branch of a git repository and
// pushes them, without a worktree: whoever signs may have any other branch
// checked out, or none.
//
// Parties: the fleet repository on this machine (Repository), and the remote
// that agents poll. Flow: Fetch the signed branch, read it (Tree), Commit the
// files that changed on top, SetBranch, look at it again, Push. A push names
// the commit that it replaces; where the remote has another one by then, it
// changes nothing and fails with a ConflictError, so of two publishers exactly
// one wins.
//
// A commit rewrites the folders on the way to changed files and nothing else,
// and a push sends what the replaced commit doesn't have, so both cost what the
// change is and not what the fleet is.
package publish
