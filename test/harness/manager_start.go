package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// launcher joins the cgroup, makes the machine look booted by systemd, which
// the manager insists on, and becomes the manager. Its arguments are: "mount" or
// "", how many cgroup.procs files follow, those, and the command.
//
// Where /run/systemd is missing, /run as a whole is covered, so that no folder
// has to be made on the machine.
const launcher = `
set -e
mode=$1 count=$2
shift 2
while [ "$count" -gt 0 ]; do echo $$ >"$1"; shift; count=$((count - 1)); done
if [ "$mode" = mount ]; then
	if [ -d /run/systemd ]; then mount -t tmpfs -o mode=755 tmpfs /run/systemd
	else mount -t tmpfs -o mode=755 tmpfs /run; fi
	mkdir -p /run/systemd/system
fi
exec "$@"
`

// managerCommand prepares the command that becomes a user manager, and the
// cgroup that it will live in.
//
// It always gets a cgroup of its own: a manager moves every process that it
// finds in its cgroup into a group of its making, and two managers in one
// cgroup kill each other's units.
func managerCommand(binary string, env []string) (*exec.Cmd, cgroup, error) {
	name := fmt.Sprintf("gpuaas-manager-%d-%s", os.Getpid(), randomName())
	group, procs, err := newCgroup(name)
	var wrapper []string
	if err != nil {
		// A user's session isn't delegated to him, but his manager hands out
		// scopes that are.
		if _, userErr := UserManager(); userErr != nil {
			return nil, cgroup{}, fmt.Errorf("cannot start a systemd manager: %w; and %w; run this as root, or log in as a user "+
				"for whom systemd starts a manager (loginctl enable-linger makes it stay)", err, userErr)
		}
		wrapper = []string{"systemd-run", "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--unit=" + name, "--"}
		group, procs = cgroup{}, nil
	}

	mode, attr := "", &syscall.SysProcAttr{Setsid: true}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		mode = "mount"
		attr.Unshareflags = syscall.CLONE_NEWNS
		if os.Geteuid() != 0 {
			// The user keeps his uid, which the manager and its clients tell
			// each other, and gets no right but that to mount.
			attr.Cloneflags = syscall.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
			attr.AmbientCaps = []uintptr{capSysAdmin}
		}
	}
	args := append(wrapper, "sh", "-c", launcher, "sh", mode, fmt.Sprint(len(procs)))
	args = append(args, procs...)
	args = append(args, "env", "-i")
	args = append(args, env...)
	args = append(args, binary, "--user")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	return cmd, group, nil
}

const capSysAdmin = 21

// randomName returns what makes a cgroup's name unique among those of one process.
func randomName() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return "0"
	}
	return filepath.Base(strings.TrimSpace(string(data)))[:8]
}
