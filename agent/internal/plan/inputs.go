package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/gpuaas/node-agent/schema/task"
)

// Inputs is the fingerprint of everything in svc's RestartOn: package digests,
// files' content, mode and owner, units' content. It doesn't depend on the order
// of RestartOn or resources. It is "" while the content of a unit among them is
// not known, because its package isn't staged.
func Inputs(svc task.Service, resources []task.Resource) string {
	x := indexOf(resources)
	return x.inputs(svc)
}

// index gives fast access to a manifest's resources.
type index struct {
	sorted     []task.Resource // by Ref
	byRef      map[string]task.Resource
	digests    map[string]string // content digests that were computed already, by Ref
	duplicates []string
}

func indexOf(resources []task.Resource) index {
	x := index{
		sorted:  make([]task.Resource, 0, len(resources)),
		byRef:   make(map[string]task.Resource, len(resources)),
		digests: make(map[string]string, len(resources)),
	}
	type entry struct {
		ref string
		r   task.Resource
	}
	entries := make([]entry, len(resources))
	for i, r := range resources {
		entries[i] = entry{r.Ref(), r}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.ref, b.ref) })
	for _, e := range entries {
		if _, ok := x.byRef[e.ref]; ok {
			x.duplicates = append(x.duplicates, e.ref)
			continue
		}
		x.byRef[e.ref] = e.r
		x.sorted = append(x.sorted, e.r)
	}
	x.duplicates = slices.Compact(x.duplicates)
	return x
}

// digest hashes a content once per plan.
func (x *index) digest(ref string, content []byte) string {
	d, ok := x.digests[ref]
	if !ok {
		d = digestOf(content)
		x.digests[ref] = d
	}
	return d
}

func (x *index) inputs(svc task.Service) string {
	refs := slices.Compact(slices.Sorted(slices.Values(svc.RestartOn)))
	var b []byte
	for _, ref := range refs {
		b = append(strconv.AppendQuote(b, ref), ' ')
		switch r := x.byRef[ref].(type) {
		case task.Package:
			b = append(b, r.Digest...)
		case task.File:
			b = append(b, x.digest(ref, r.Content)...)
			b = strconv.AppendUint(append(b, ' '), uint64(r.Mode.Perm()), 8)
			b = strconv.AppendQuote(strconv.AppendQuote(append(b, ' '), r.Owner), r.Group)
		case task.Unit:
			if pending(&r) {
				return ""
			}
			b = append(b, x.digest(ref, r.Content)...)
		default:
			b = append(b, "absent"...)
		}
		b = append(b, '\n')
	}
	return digestOf(b)
}

// unresolved returns the unit among svc's RestartOn whose content isn't known.
func (x *index) unresolved(svc task.Service) (task.Unit, bool) {
	for _, ref := range slices.Sorted(slices.Values(svc.RestartOn)) {
		if u, ok := x.byRef[ref].(task.Unit); ok && pending(&u) {
			return u, true
		}
	}
	return task.Unit{}, false
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// short shortens a digest for people.
func short(digest string) string {
	const n = len("sha256:") + 12
	if len(digest) > n {
		return digest[:n]
	}
	return digest
}
