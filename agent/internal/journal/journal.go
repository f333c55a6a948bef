// Package journal keeps on disk what observing the host can't tell: which
// manifest is the target, how often it was tried, which one was last good,
// what is held, what the agent owns, and what it trusts. Recovery after a crash
// loads it, observes again and plans again; nothing is ever replayed.
//
// Layout below the state folder:
//
//	journal.json      State
//	inventory.json    host.Inventory
//	trust/state.json  what schema/trust returned; bytes to this package
//	manifests/<hex>   manifest bytes by sha256: target and last good
//	lock              held while an agent that changes the host runs
//
// Every file is replaced atomically and durably. A file that can't be decoded
// is set aside as <name>.corrupt and reported; one written by a newer version
// is refused. A Journal is not safe for concurrent use: the loop owns it.
package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// version is that of the files; newer ones are refused.
const version = 1

// maxState caps each file that is read back.
const maxState = 64 << 20

// folders are those of the layout, below the state folder.
var folders = []string{".", "trust", "manifests"}

// State is journal.json.
type State struct {
	Version int `json:"version"`
	// Phase is the loop's, for status after a restart.
	Phase string `json:"phase"`
	// Commit is that of the signed branch that was last verified.
	Commit string `json:"commit,omitempty"`
	// Target is the newest verified manifest.
	Target *Manifest `json:"target,omitempty"`
	// LastGood is the manifest that the host last reached and that passed its probation.
	LastGood *Manifest `json:"lastGood,omitempty"`
	// Hold says that Target failed; it isn't tried again until another one comes.
	Hold *Hold `json:"hold,omitempty"`
	// Attempts counts failed attempts at Target that may be tried again.
	Attempts int `json:"attempts,omitempty"`
	// LastContact is when the source last answered.
	LastContact time.Time `json:"lastContact,omitzero"`
	// Applied is when the host last became what its manifest says.
	Applied time.Time `json:"applied,omitzero"`
}

// Manifest names a node manifest.
type Manifest struct {
	Generation int64 `json:"generation"`
	// Digest is "sha256:<hex>" of the manifest's bytes.
	Digest string `json:"digest"`
}

// Hold is why a manifest is not tried again.
type Hold struct {
	Manifest
	Since time.Time `json:"since"`
	// Error is what status shows.
	Error v1.StatusError `json:"error"`
}

// Journal is an open state folder.
type Journal struct {
	dir  string
	lock *os.File
	// State and Inventory are as on disk; change and Save.
	State     State
	Inventory host.Inventory
}

// ErrLocked says that another agent works on this state folder.
var ErrLocked = errors.New("another agent holds the lock")

// Open makes the state folder if need be, takes its lock and loads what is
// there. Corrupt files are set aside; their names come back in setAside, and the
// agent goes on as if they had never been. It returns ErrLocked (wrapped) when
// another agent runs.
func Open(dir string) (j *Journal, setAside []string, err error) {
	for _, name := range folders {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, nil, fmt.Errorf("cannot make the state folder: %w", err)
		}
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, nil, err
	}
	j = &Journal{dir: dir, lock: lock}
	if err := errors.Join(j.removeTemp(), j.load(&setAside)); err != nil {
		return nil, setAside, errors.Join(err, lock.Close())
	}
	return j, setAside, nil
}

// removeTemp removes what killed agents left half written. It needs the lock:
// one that runs is writing.
func (j *Journal) removeTemp() error {
	for _, name := range folders {
		if err := durable.RemoveTemp(filepath.Join(j.dir, name)); err != nil {
			return fmt.Errorf("cannot clean the state folder: %w", err)
		}
	}
	return nil
}

func takeLock(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock: %w", err)
	}
	for try := 0; ; try++ {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || try == lockTries {
			break
		}
		time.Sleep(lockPause) // it may be Running that looks
	}
	if err == nil {
		return lock, nil
	}
	_ = lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w on %s: stop it, or use its status", ErrLocked, dir)
	}
	return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
}

// How often, and how long apart, the lock is tried: Running holds it for an
// instant, another agent for as long as it runs.
const (
	lockTries = 5
	lockPause = 20 * time.Millisecond
)

// Peek loads the state without the lock, for commands that only look.
func Peek(dir string) (*Journal, error) {
	j := &Journal{dir: dir}
	return j, j.load(nil)
}

// Running reports whether an agent holds the lock of the state folder. An error
// says that this can't be told, to somebody who may not open it for one.
func Running(dir string) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at the lock: %w", err)
	}
	defer lock.Close()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// Close gives the lock back.
func (j *Journal) Close() error {
	if j.lock == nil {
		return nil
	}
	return j.lock.Close()
}

func (j *Journal) load(setAside *[]string) error {
	var err error
	if j.State, err = read(j.dir, "journal.json", State{Version: version, Phase: "Idle"}, setAside); err != nil {
		return err
	}
	inv, err := read(j.dir, "inventory.json", host.NewInventory(), setAside)
	j.Inventory = inv.Clone()
	return err
}

// read decodes a file. It returns def where the file is missing or corrupt; a
// corrupt one is set aside. What a newer agent wrote is no corruption, whatever
// it looks like.
func read[T any](dir, name string, def T, setAside *[]string) (T, error) {
	path := filepath.Join(dir, name)
	data, err := readCapped(path)
	if errors.Is(err, fs.ErrNotExist) {
		return def, nil
	}
	if err != nil {
		return def, fmt.Errorf("cannot read state: %w", err)
	}
	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &format); err == nil && format.Version > version {
		return def, &host.Error{Component: "journal", Element: path, Reason: v1.ReasonUnknownVersion,
			Err: fmt.Errorf("written by a newer agent (format %d, this one knows %d): install that agent again, or move the file away", format.Version, version)}
	}
	var out T
	if err := json.Unmarshal(data, &out); err == nil {
		return out, nil
	}
	if setAside == nil {
		return def, fmt.Errorf("%s is corrupt; the agent sets it aside when it starts", path)
	}
	if err := os.Rename(path, path+".corrupt"); err != nil {
		return def, fmt.Errorf("cannot set corrupt state aside: %w", err)
	}
	*setAside = append(*setAside, path+".corrupt")
	return def, nil
}

func readCapped(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err == nil && len(data) > maxState {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxState)
	}
	return data, err
}

// Save makes State durable.
func (j *Journal) Save() error {
	j.State.Version = version
	return j.write("journal.json", j.State)
}

// SaveInventory makes inv durable, and it becomes j.Inventory.
func (j *Journal) SaveInventory(inv host.Inventory) error {
	j.Inventory = inv.Clone()
	return j.write("inventory.json", struct {
		Version int `json:"version"`
		host.Inventory
	}{version, j.Inventory})
}

func (j *Journal) write(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode state: %w", err)
	}
	return j.writeBytes(name, append(data, '\n'))
}

func (j *Journal) writeBytes(name string, data []byte) error {
	if err := durable.WriteFile(filepath.Join(j.dir, name), data, durable.Options{Mode: 0o600}); err != nil {
		return storageError(filepath.Join(j.dir, name), err)
	}
	return nil
}

func storageError(path string, err error) error {
	reason := v1.ReasonNotWritable
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		reason = v1.ReasonNoSpace
	}
	return &host.Error{Component: "journal", Element: path, Reason: reason, Retry: true, Err: err}
}

// Trust returns the stored trust state, nil if there is none.
func (j *Journal) Trust() ([]byte, error) {
	data, err := readCapped(filepath.Join(j.dir, "trust", "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SaveTrust makes the trust state durable. It must return before anything acts on it.
func (j *Journal) SaveTrust(data []byte) error {
	return j.writeBytes(filepath.Join("trust", "state.json"), data)
}

// SetAsideTrust moves trust state that can't be decoded out of the way and
// returns its new name. The version floor is then that of the bootstrap root.
func (j *Journal) SetAsideTrust() (string, error) {
	path := filepath.Join(j.dir, "trust", "state.json")
	if j.lock == nil {
		return "", fmt.Errorf("%s is corrupt; the agent sets it aside when it starts", path)
	}
	return path + ".corrupt", os.Rename(path, path+".corrupt")
}

// SaveManifest keeps manifest bytes and returns their name.
func (j *Journal) SaveManifest(data []byte, generation int64) (Manifest, error) {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	m := Manifest{Generation: generation, Digest: "sha256:" + name}
	if _, err := j.LoadManifest(m); err == nil {
		return m, nil
	}
	return m, j.writeBytes(filepath.Join("manifests", name), data)
}

// LoadManifest returns the bytes of a kept manifest. They are checked against
// its digest.
func (j *Journal) LoadManifest(m Manifest) ([]byte, error) {
	name := strings.TrimPrefix(m.Digest, "sha256:")
	data, err := readCapped(filepath.Join(j.dir, "manifests", filepath.Base(name)))
	if err != nil {
		return nil, fmt.Errorf("cannot read the kept manifest: %w", err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != name {
		return nil, &host.Error{Component: "journal", Element: m.Digest, Reason: v1.ReasonStateCorrupt,
			Err: errors.New("the kept manifest's bytes changed")}
	}
	return data, nil
}

// DropManifests removes kept manifests that State no longer names.
func (j *Journal) DropManifests() error {
	keep := map[string]bool{}
	for _, m := range []*Manifest{j.State.Target, j.State.LastGood} {
		if m != nil {
			keep[strings.TrimPrefix(m.Digest, "sha256:")] = true
		}
	}
	dir := filepath.Join(j.dir, "manifests")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
