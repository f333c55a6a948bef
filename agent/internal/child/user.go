package child

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Nobody is the user and group without any rights of their own, as numbers: a
// machine needn't have the account.
const Nobody = "65534:65534"

// Root means to drop nothing.
const Root = "0:0"

// credential finds the user that a child shall run as: "UID:GID", or the name
// of an account, whose group is taken. It has no other groups.
func credential(name string) (*syscall.Credential, error) {
	uid, gid, numbers := strings.Cut(name, ":")
	if !numbers {
		account, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("cannot find the account %q for a child process: %w; make it, or name another", name, err)
		}
		uid, gid = account.Uid, account.Gid
	}
	u, err := strconv.ParseUint(uid, 10, 32)
	if err == nil {
		var g uint64
		if g, err = strconv.ParseUint(gid, 10, 32); err == nil {
			return &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}, nil
		}
	}
	return nil, fmt.Errorf("%q is neither an account nor UID:GID: %w", name, err)
}

// firstFree is above every descriptor that a child is given.
const firstFree = 64

// openExecutable opens a binary so that a user who may not enter its folder can
// run it by the path that comes back, until the file is closed.
func openExecutable(path string) (*os.File, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }()
	// What the child is given must not take this descriptor's place before it is used.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, firstFree)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open %s twice: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), fmt.Sprintf("/proc/self/fd/%d", fd), nil
}
