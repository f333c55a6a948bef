package plan

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/host"
)

// wanted is what a path must hold.
type wanted struct {
	digest       string
	mode         fs.FileMode
	owner, group string // empty: that of self
	adopt        bool
}

// record is what the inventory says of a path.
type record struct {
	owned bool
	// digest is that of the content last written.
	digest string
	// same is true when what is wanted is what was last written, so that a
	// difference can only come from the host.
	same bool
}

// verdict is what is to be done about a path.
type verdict struct {
	write bool
	// changes is false when only the inventory is behind.
	changes  bool
	reason   string
	drift    bool
	conflict string
}

// compare judges one path. It writes whenever the host or the inventory would
// otherwise not be as wanted.
func compare(want wanted, obs host.FileState, rec record, self Identity) verdict {
	switch {
	case obs.Err != "":
		return verdict{conflict: "cannot be looked at: " + obs.Err}
	case !obs.Exists && rec.same:
		return verdict{write: true, changes: true, drift: true, reason: "was removed"}
	case !obs.Exists:
		return verdict{write: true, changes: true, reason: "does not exist"}
	case obs.Kind == "dir":
		return verdict{conflict: "a folder is in its place; move it away"}
	case obs.Kind != "file":
		return replaceOther(want, obs, rec)
	}
	diffs := differences(want, obs, self)
	switch {
	case len(diffs) == 0 && !rec.owned:
		return verdict{write: true, reason: "is as wanted already; becomes the agent's"}
	case len(diffs) == 0 && rec.digest != want.digest:
		return verdict{write: true, reason: "is as wanted already; recorded anew"}
	case len(diffs) == 0:
		return verdict{}
	case !rec.owned && !want.adopt:
		return verdict{conflict: "exists and is not the agent's (" + strings.Join(diffs, ", ") +
			"); set adopt: true on the task to let the agent replace it, or move it away"}
	case !rec.owned:
		return verdict{write: true, changes: true, reason: "is taken over, as the task says adopt: true (" + strings.Join(diffs, ", ") + ")"}
	}
	return verdict{write: true, changes: true, drift: rec.same, reason: strings.Join(diffs, ", ")}
}

// replaceOther judges a symlink, socket, device or pipe where a file is wanted.
func replaceOther(want wanted, obs host.FileState, rec record) verdict {
	kind := "something that is not a file"
	if obs.Kind == "symlink" {
		kind = "a symlink"
	}
	switch {
	case rec.owned:
		return verdict{write: true, changes: true, drift: true, reason: "was replaced by " + kind}
	case want.adopt:
		return verdict{write: true, changes: true, reason: "is " + kind + "; taken over, as the task says adopt: true"}
	}
	return verdict{conflict: "exists as " + kind + " and is not the agent's; set adopt: true on the task to replace it, or move it away"}
}

// differences tells in words what differs in a regular file.
func differences(want wanted, obs host.FileState, self Identity) []string {
	var diffs []string
	if obs.Digest != want.digest {
		diffs = append(diffs, "content differs")
	}
	if obs.Mode != want.mode {
		diffs = append(diffs, fmt.Sprintf("mode is %04o, wanted %04o", obs.Mode, want.mode))
	}
	if !sameOwner(want.owner, obs.Owner, obs.UID, self.Owner) {
		diffs = append(diffs, fmt.Sprintf("owner is %s, wanted %s", obs.Owner, orSelf(want.owner, self.Owner)))
	}
	if !sameOwner(want.group, obs.Group, obs.GID, self.Group) {
		diffs = append(diffs, fmt.Sprintf("group is %s, wanted %s", obs.Group, orSelf(want.group, self.Group)))
	}
	return diffs
}

// sameOwner compares a wanted owner, a name or a number, with what was found.
func sameOwner(want, name string, id uint32, self string) bool {
	want = orSelf(want, self)
	return want == "" || want == name || want == strconv.FormatUint(uint64(id), 10)
}

func orSelf(want, self string) string {
	if want == "" {
		return self
	}
	return want
}
