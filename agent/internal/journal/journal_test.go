package journal_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func open(t *testing.T, dir string) (*journal.Journal, []string) {
	t.Helper()
	j, setAside, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, setAside
}

func TestEverythingSurvivesAReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j, _ := open(t, dir)
	m, err := j.SaveManifest([]byte("manifest"), 7)
	if err != nil {
		t.Fatal(err)
	}
	j.State.Target, j.State.LastGood, j.State.Commit = &m, &m, "abc"
	j.State.Hold = &journal.Hold{Manifest: m, Since: time.Unix(1, 0).UTC(), Error: v1.StatusError{Category: v1.ReasonUnhealthy}}
	inv := host.NewInventory()
	inv.Services["gpuaas-a.service"] = host.OwnedService{Inputs: "x", Pending: &host.PendingRestart{Inputs: "y"}}
	if err := errors.Join(j.Save(), j.SaveInventory(inv), j.SaveTrust([]byte(`{"a":1}`)), j.Close()); err != nil {
		t.Fatal(err)
	}

	again, setAside := open(t, dir)
	if len(setAside) != 0 {
		t.Errorf("set aside: %v", setAside)
	}
	if again.State.Hold == nil || again.State.Hold.Error.Category != v1.ReasonUnhealthy || *again.State.Target != m {
		t.Errorf("state is %+v", again.State)
	}
	if p := again.Inventory.Services["gpuaas-a.service"].Pending; p == nil || p.Inputs != "y" {
		t.Errorf("inventory is %+v", again.Inventory)
	}
	if data, err := again.LoadManifest(m); err != nil || string(data) != "manifest" {
		t.Errorf("manifest: %q, %v", data, err)
	}
	if data, err := again.Trust(); err != nil || string(data) != `{"a":1}` {
		t.Errorf("trust: %q, %v", data, err)
	}
}

func TestSecondAgentIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, _, err := journal.Open(dir); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	if running, err := journal.Running(dir); !running || err != nil {
		t.Errorf("Running is %v, %v while the lock is held", running, err)
	}
	if _, err := journal.Peek(dir); err != nil {
		t.Errorf("looking needs no lock: %v", err)
	}
}

// A second agent that is refused must not take away what the first is writing.
func TestSecondAgentTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	writing := filepath.Join(dir, durable.TempPrefix+"1")
	if err := os.WriteFile(writing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := journal.Open(dir); !errors.Is(err, journal.ErrLocked) {
		t.Fatalf("second Open: %v", err)
	}
	if _, err := os.Stat(writing); err != nil {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(writing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed agent left is still there: %v", err)
	}
}

// Somebody who asks whether an agent runs must not keep one from starting.
func TestLookingDoesNotKeepAnAgentOut(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				if _, err := journal.Running(dir); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 50 {
		j, _, err := journal.Open(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}

// Every file, cut at every class of length, is set aside and never fatal.
func TestCorruptFilesAreSetAside(t *testing.T) {
	for _, name := range []string{"journal.json", "inventory.json"} {
		for _, size := range []int{0, 1, 20} {
			dir := t.TempDir()
			j, _ := open(t, dir)
			if err := errors.Join(j.Save(), j.SaveInventory(host.NewInventory()), j.Close()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, name)
			if err := os.Truncate(path, int64(size)); err != nil {
				t.Fatal(err)
			}
			if _, err := journal.Peek(dir); err == nil {
				t.Errorf("%s cut to %d: Peek believed it", name, size)
			}
			again, setAside := open(t, dir)
			if len(setAside) != 1 || setAside[0] != path+".corrupt" {
				t.Errorf("%s cut to %d: set aside %v", name, size, setAside)
			}
			if again.State.Phase != "Idle" || again.Inventory.Files == nil {
				t.Errorf("%s cut to %d: not as new: %+v", name, size, again.State)
			}
		}
	}
}

// What could be read of a corrupt file before the error doesn't count either.
func TestCorruptFileIsNotHalfBelieved(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal.json"), []byte(`{"version":1,"commit":"abc","target":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	j, setAside := open(t, dir)
	if len(setAside) != 1 || j.State.Commit != "" || j.State.Phase != "Idle" {
		t.Errorf("set aside %v, state %+v", setAside, j.State)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	for _, name := range []string{"journal.json", "inventory.json"} {
		dir := t.TempDir()
		// Also where what this one knows has another shape there.
		data := []byte(`{"version": 99, "target": [], "files": []}`)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := journal.Open(dir)
		if e := host.AsError(err); err == nil || e.Reason != v1.ReasonUnknownVersion {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChangedManifestIsNotLoaded(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	m, err := j.SaveManifest([]byte("manifest"), 1)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "manifests", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("Manifest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := j.LoadManifest(m); host.AsError(err).Reason != v1.ReasonStateCorrupt {
		t.Errorf("changed manifest: %v", err)
	}
	// The next save of the same bytes heals it.
	if _, err := j.SaveManifest([]byte("manifest"), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := j.LoadManifest(m); err != nil {
		t.Error(err)
	}
}

func TestDropManifestsKeepsTargetAndLastGood(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	var kept []journal.Manifest
	for i, text := range []string{"old", "good", "target"} {
		m, err := j.SaveManifest([]byte(text), int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, m)
	}
	j.State.LastGood, j.State.Target = &kept[1], &kept[2]
	if err := j.DropManifests(); err != nil {
		t.Fatal(err)
	}
	for i, m := range kept {
		if _, err := j.LoadManifest(m); (err == nil) != (i > 0) {
			t.Errorf("manifest %d: %v", i, err)
		}
	}
}
