package publish_test

import (
	"testing"

	"github.com/gpuaas/node-agent/test/harness"
)

func TestContains(t *testing.T) {
	repo := open(t, harness.NewGitRepo(t, t.TempDir()).Dir)
	first := commit(t, repo, change("", map[string]string{"f": "first"}))
	second := commit(t, repo, change(first, map[string]string{"f": "second"}))
	other := commit(t, repo, change(first, map[string]string{"f": "other"}))
	for _, tc := range []struct {
		name             string
		commit, ancestor string
		want             bool
	}{
		{"itself", second, second, true}, {"its parent", second, first, true}, {"its child", first, second, false},
		{"another line", second, other, false}, {"nothing is in everything", second, "", true}, {"no commit holds one", "", first, false},
	} {
		if got, err := repo.Contains(tc.commit, tc.ancestor); err != nil || got != tc.want {
			t.Errorf("%s: got %v, %v", tc.name, got, err)
		}
	}
	if _, err := repo.Contains("0123456789012345678901234567890123456789", first); err == nil {
		t.Error("a commit that isn't there has a history")
	}
}
