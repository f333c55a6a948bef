// Package store installs packages: it unpacks layers into a version folder,
// swings the link that makes a version the current one, and removes what
// nobody needs.
//
//	<root>/<name>/current -> versions/sha256-<hex>
//	<root>/<name>/versions/sha256-<hex>/        the files
//	<root>/<name>/versions/sha256-<hex>.files   their list, with digests
//	<root>/.staging/                            work in progress
//
// A version folder is named after the package's digest, with a dash because
// a colon in a path breaks PATH and its like. It appears by one rename, after
// everything in it is on the disk, and its list appears before it: who sees a
// version sees all of it. Versions never change; current is replaced by one
// rename.
//
// Archives are not trusted, though their digest was signed: a build machine may
// have been. Regular files, folders and relative symlinks that end inside the
// package are taken; everything else refuses the package. Modes become 0755 or
// 0644, owners the agent's own. All paths go through os.Root.
//
// The hashes of layers are checked again in passing, so a blob that rotted
// since its download is found. Activate looks at every file of a version (is it
// there, its type, size, mode) before it swings the link, which takes
// milliseconds; contents are compared only by Check, since reading gigabytes
// at each activation would cost more than it finds. A version found changed loses
// its list and with that counts as missing, so the next Unpack replaces it.
//
// Locking: one agent changes a root at a time, and it is the loop's lock that
// sees to it. Two processes that unpack the same version don't harm each other, and
// Open leaves alone what another process has in staging at that moment.
package store
