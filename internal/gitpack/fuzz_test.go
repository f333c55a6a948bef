package gitpack_test

import (
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// FuzzEntries holds trees and commits of strangers to: read or refused, never a panic, and no entry
// whose name is a path.
func FuzzEntries(f *testing.F) {
	id := strings.Repeat("i", 20)
	for _, seed := range []string{
		"100644 a\x00" + id + "40000 b\x00" + id, "120000 l\x00" + id, "100644 a\x00short", "100644", "\x00", "99999999999999 a\x00" + id,
		"100644 ../x\x00" + id, "100644 \x00" + id, "tree " + strings.Repeat("0", 40) + "\n", "tree xyz\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = gitpack.Entries(gitpack.Object{Type: gitpack.Tree, Data: data}, func(e gitpack.Entry) bool {
			if strings.ContainsAny(e.Name, "/\x00") && e.IsFile() && e.IsDir() {
				t.Errorf("%q is a file and a folder", e.Name)
			}
			return true
		})
		_, _ = gitpack.CommitTree(gitpack.Object{Type: gitpack.Commit, Data: data})
	})
}
