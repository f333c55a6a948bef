package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroup is a control group, by its unique name, in whichever hierarchies it exists.
type cgroup struct {
	name string
	// scope is the folder of a group that systemd-run made elsewhere. systemd
	// removes that when it is empty.
	scope string
}

// hierarchy is one mounted cgroup tree, and a process's place in it.
type hierarchy struct {
	controllers string // "" for version 2, "name=systemd", "memory", ...
	mount       string
	own         string // the folder of a process in it
}

// newCgroup makes a cgroup below this process's in the hierarchies that systemd
// tracks processes by, and returns the files that a process joins it through.
func newCgroup(name string) (_ cgroup, procs []string, err error) {
	group := cgroup{name: name}
	hierarchies, err := hierarchies("self")
	if err != nil {
		return cgroup{}, nil, err
	}
	for _, h := range hierarchies {
		if h.controllers != "" && h.controllers != "name=systemd" {
			continue
		}
		dir := filepath.Join(h.own, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return cgroup{}, nil, errors.Join(fmt.Errorf("cannot make a cgroup for it: %w", err), group.remove())
		}
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	if len(procs) == 0 {
		return cgroup{}, nil, errors.New("no cgroup file system is mounted at /sys/fs/cgroup")
	}
	return group, procs, nil
}

// kill ends every process in the group and below. It returns when none is left.
func (g cgroup) kill() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		pids, err := g.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("cannot end process %d of the systemd manager: %w", pid, err)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot end the processes %v of the systemd manager", pids)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// pids returns the processes in the group and below; zombies count until
// somebody reaps them.
func (g cgroup) pids() ([]int, error) {
	var pids []int
	err := g.walk(func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			// 0 is a process of another PID namespace, out of reach.
			if pid > 1 && pid != os.Getpid() && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// remove removes the group's folders, which must hold no process.
func (g cgroup) remove() error {
	var dirs []string
	if g.scope != "" {
		return nil
	}
	if err := g.walk(func(dir string) error { dirs = append(dirs, dir); return nil }); err != nil {
		return err
	}
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}

// removeGroup removes one folder. The kernel says busy for a moment after the
// last process of it ended.
func removeGroup(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := ignoreGone(syscall.Rmdir(dir))
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			if err != nil {
				return fmt.Errorf("cannot remove the cgroup %s: %w", dir, err)
			}
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// walk calls visit for the group's folders in every hierarchy, parents first.
func (g cgroup) walk(visit func(dir string) error) error {
	roots, err := g.roots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := walkGroup(root, visit); err != nil {
			return err
		}
	}
	return nil
}

// roots returns where the group is, or may come to be. A manager repeats its
// place of one hierarchy in the others, so that is the name below every place
// that this process has anywhere.
func (g cgroup) roots() ([]string, error) {
	if g.scope != "" {
		return []string{g.scope}, nil
	}
	hierarchies, err := hierarchies("self")
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, h := range hierarchies {
		for _, place := range hierarchies {
			below, err := filepath.Rel(place.mount, place.own)
			if err != nil {
				return nil, err
			}
			if root := filepath.Join(h.mount, below, g.name); !slices.Contains(roots, root) {
				roots = append(roots, root)
			}
		}
	}
	return roots, nil
}

func walkGroup(root string, visit func(dir string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		if d.IsDir() {
			return visit(path)
		}
		return nil
	})
}

// scopeOf returns the folder of the scope that a manager lives in, which it
// shares with its units.
func scopeOf(manager int) (string, error) {
	hierarchies, err := hierarchies(strconv.Itoa(manager))
	if err != nil {
		return "", err
	}
	for _, h := range hierarchies {
		if h.controllers == "" || h.controllers == "name=systemd" {
			return strings.TrimSuffix(h.own, "/init.scope"), nil
		}
	}
	return "", errors.New("no cgroup file system is mounted at /sys/fs/cgroup")
}

// hierarchies returns the cgroup trees that are mounted here, and the place of
// a process ("self" or a number) in them.
func hierarchies(process string) ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	places, err := os.ReadFile("/proc/" + process + "/cgroup")
	if err != nil {
		return nil, err
	}
	var found []hierarchy
	for line := range strings.Lines(string(places)) {
		// "4:memory:/user.slice", and "0::/user.slice" for version 2.
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			continue
		}
		mount, root, ok := cgroupMount(string(mounts), part[1])
		if !ok {
			continue
		}
		// In a container the mount shows a part of the tree only.
		place := part[2]
		if root != "/" {
			place = strings.TrimPrefix(place, root)
		}
		found = append(found, hierarchy{controllers: part[1], mount: mount, own: filepath.Join(mount, place)})
	}
	return found, nil
}

// cgroupMount finds in mountinfo where the hierarchy with these controllers is
// mounted, and which part of it.
func cgroupMount(mountinfo, controllers string) (mount, root string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		// "39 30 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(place) < 5 || len(kind) < 3 || !strings.HasPrefix(place[4], "/sys/fs/cgroup") {
			continue
		}
		switch {
		case kind[0] == "cgroup2" && controllers == "":
			return place[4], place[3], true
		case kind[0] == "cgroup" && controllers != "" && hasOptions(kind[2], controllers):
			return place[4], place[3], true
		}
	}
	return "", "", false
}

func hasOptions(options, wanted string) bool {
	have := strings.Split(options, ",")
	for w := range strings.SplitSeq(wanted, ",") {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}
