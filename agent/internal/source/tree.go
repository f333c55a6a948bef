package source

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// file is a wanted file that the branch has.
type file struct {
	path string
	blob gitpack.ID
}

// walk goes from a commit along the wanted paths as far as objects are here.
// It is done when nothing is missing.
type walk struct {
	objects map[gitpack.ID]gitpack.Object
	limits  Limits

	// used are the objects that led somewhere, the commit first.
	used []gitpack.ID
	// files are those found, by path; their blobs are in used or missing.
	files []file
	// missing are objects to get before the walk can go on.
	missing []gitpack.ID
	seen    map[gitpack.ID]bool
}

// walkFrom walks from a commit.
func walkFrom(objects map[gitpack.ID]gitpack.Object, commit gitpack.ID, wanted []string, limits Limits) (*walk, error) {
	w := &walk{objects: objects, limits: limits, seen: map[gitpack.ID]bool{}}
	c, ok := w.use(commit)
	if !ok {
		return w, nil
	}
	root, err := gitpack.CommitTree(c)
	if err != nil {
		return nil, fmt.Errorf("the branch points to %s: %w", commit, err)
	}
	pending := make([][]string, 0, len(wanted))
	for _, name := range wanted {
		pending = append(pending, strings.Split(name, "/"))
	}
	if err := w.tree(root, "", pending); err != nil {
		return nil, err
	}
	slices.SortFunc(w.files, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	w.files = slices.CompactFunc(w.files, func(a, b file) bool { return a.path == b.path })
	for _, f := range w.files {
		w.use(f.blob)
	}
	return w, nil
}

// use returns an object, or notes that it is missing.
func (w *walk) use(id gitpack.ID) (gitpack.Object, bool) {
	o, ok := w.objects[id]
	if !w.seen[id] {
		w.seen[id] = true
		if ok {
			w.used = append(w.used, id)
		} else {
			w.missing = append(w.missing, id)
		}
	}
	return o, ok
}

// tree follows paths, each given by its elements that are left.
func (w *walk) tree(id gitpack.ID, prefix string, pending [][]string) error {
	o, ok := w.use(id)
	if !ok {
		return nil
	}
	type child struct {
		id      gitpack.ID
		pending [][]string
	}
	children := map[string]child{}
	err := gitpack.Entries(o, func(e gitpack.Entry) bool {
		for _, elements := range pending {
			matched, _ := path.Match(elements[0], e.Name)
			switch {
			case !matched:
			case len(elements) == 1 && e.IsFile():
				w.files = append(w.files, file{prefix + e.Name, e.ID})
			case len(elements) > 1 && e.IsDir():
				children[e.Name] = child{e.ID, append(children[e.Name].pending, elements[1:])}
			}
		}
		return len(w.files) <= w.limits.Files
	})
	if err != nil {
		return fmt.Errorf("folder %q of the branch: %w", prefix, err)
	}
	if len(w.files) > w.limits.Files {
		return fmt.Errorf("the branch has more than %d wanted files: %w", w.limits.Files, errLimit)
	}
	for _, name := range slices.Sorted(maps.Keys(children)) {
		if err := w.tree(children[name].id, prefix+name+"/", children[name].pending); err != nil {
			return err
		}
	}
	return nil
}

// contents returns the files' bytes, within the limits.
func (w *walk) contents() (map[string][]byte, error) {
	files, total := make(map[string][]byte, len(w.files)), int64(0)
	for _, f := range w.files {
		o := w.objects[f.blob]
		if o.Type != gitpack.Blob {
			return nil, fmt.Errorf("%s is a %s in the branch", f.path, o.Type)
		}
		size := int64(len(o.Data))
		if total += size; size > w.limits.File || total > w.limits.Total {
			return nil, fmt.Errorf("%s has %d bytes: %w of %d for a file or %d for all", f.path, size, errLimit, w.limits.File, w.limits.Total)
		}
		files[f.path] = o.Data
	}
	return files, nil
}
