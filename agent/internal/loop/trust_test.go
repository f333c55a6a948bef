package loop_test

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// What was verified counts only once the new floor is durable: an agent that acted before,
// and died, could be shown the older state again.
func TestNothingIsDoneBeforeTheFloorIsDurable(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	trustDir := filepath.Join(w.dir, "state", "trust")
	if err := os.RemoveAll(trustDir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trustDir, nil, 0o600); err != nil { // no folder: nothing can be stored
		t.Fatal(err)
	}
	w.applied = nil
	w.publish(3, "two")
	w.once()
	if len(w.applied) != 0 {
		t.Errorf("did %v", w.applied)
	}
	if err := os.Remove(trustDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(trustDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if s := w.once(); len(w.applied) == 0 || s.LastError != nil {
		t.Errorf("not judged again: did %v, status %+v", w.applied, s.LastError)
	}
	w.want(t, v1.Verified, v1.True, v1.ReasonOK)
}
