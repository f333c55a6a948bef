package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// State is what a node must remember between refreshes. The zero State is that of
// a node that knows only its bootstrap root. It is a value: nothing changes one
// that was handed out. Make it durable before acting on the Verified that came with it.
type State struct {
	roots []rootFile // verified, above the bootstrap root, by version
	last  *verifiedSet
	floor floor
	// seen is the latest time known to have passed.
	seen time.Time
	// memo spares the work of verifying the very same files again. It is not stored.
	memo *memo
}

// verifiedSet is the files that were last verified together.
type verifiedSet struct {
	// Root is the version of the root that they were verified under.
	Root      int64      `json:"root"`
	Team      string     `json:"team"`
	Node      string     `json:"node"`
	Timestamp []byte     `json:"timestamp"`
	Snapshot  []byte     `json:"snapshot"`
	Targets   []byte     `json:"targets"`
	Roles     []roleFile `json:"roles"`
	Manifest  []byte     `json:"manifest"`
}

// files shows the set as a signed branch.
func (s *verifiedSet) files() mapFiles {
	m := mapFiles{
		MetadataPath("timestamp"):               s.Timestamp,
		MetadataPath("snapshot"):                s.Snapshot,
		MetadataPath("targets"):                 s.Targets,
		TargetsDir + TargetPath(s.Team, s.Node): s.Manifest,
	}
	for _, r := range s.Roles {
		m[MetadataPath(r.Name)] = r.Data
	}
	return m
}

// floor is the highest that was ever accepted of everything that must not fall.
type floor struct {
	// TimestampKeys are the public keys that the timestamp role had then.
	TimestampKeys []string         `json:"timestampKeys,omitempty"`
	Root          int64            `json:"root"`
	Timestamp     int64            `json:"timestamp"`
	Snapshot      int64            `json:"snapshot"`
	Targets       int64            `json:"targets"`
	Roles         map[string]int64 `json:"roles,omitempty"`
	// Generation and Digest are those of the manifest of Node.
	Node       string `json:"node,omitempty"`
	Generation int64  `json:"generation"`
	Digest     string `json:"digest,omitempty"`
}

// under is the floor that holds once keys sign the timestamp. Taking a key
// away resets it: whoever held that key may have signed any version, up to the
// highest. A key that was only added resets nothing. The root's version always stays.
func (f floor) under(keys []string) floor {
	for _, k := range f.TimestampKeys {
		if !slices.Contains(keys, k) {
			return floor{Root: f.Root}
		}
	}
	return f
}

// IsZero tells whether nothing was ever verified.
func (s State) IsZero() bool { return len(s.roots) == 0 && s.last == nil && s.seen.IsZero() }

const (
	stateVersion = 1
	maxState     = 64 << 20
)

// stateFile is the stored form. Sum is the SHA-256 of Body: without it a flipped bit
// in the floor would pass for another floor.
type stateFile struct {
	Version int             `json:"version"`
	Sum     string          `json:"sum"`
	Body    json.RawMessage `json:"body"`
}

type stateBody struct {
	Roots []rootFile   `json:"roots,omitempty"`
	Last  *verifiedSet `json:"last,omitempty"`
	Floor floor        `json:"floor"`
	Seen  time.Time    `json:"seen"`
}

// MarshalJSON implements json.Marshaler. The same State gives the same bytes.
func (s State) MarshalJSON() ([]byte, error) {
	body, err := json.Marshal(stateBody{s.roots, s.last, s.floor, s.seen})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the trust state: %w", err)
	}
	sum := sha256.Sum256(body)
	return json.Marshal(stateFile{stateVersion, hex.EncodeToString(sum[:]), body})
}

// UnmarshalJSON implements json.Unmarshaler. Its errors are those of DecodeState.
func (s *State) UnmarshalJSON(data []byte) error {
	decoded, err := DecodeState(data)
	if err != nil {
		return err
	}
	*s = decoded
	return nil
}

// DecodeState reads what MarshalJSON wrote. The *Error says StateCorrupt, or
// UnknownVersion where a newer version wrote it. A caller sets a corrupt file aside
// and goes on with the zero State: the node then trusts its bootstrap root alone.
func DecodeState(data []byte) (State, error) {
	corrupt := func(err error) (State, error) {
		return State{}, &Error{Reason: v1.ReasonStateCorrupt, Err: fmt.Errorf("cannot read the stored trust state: %w", err)}
	}
	if len(data) > maxState {
		return corrupt(fmt.Errorf("it has more than %d bytes", maxState))
	}
	var f stateFile
	if err := decodeJSON(data, &f); err != nil {
		return corrupt(err)
	}
	if f.Version > stateVersion {
		return State{}, fail(v1.ReasonUnknownVersion, "", "the stored trust state has version %d; this binary knows versions up to %d", f.Version, stateVersion)
	}
	sum := sha256.Sum256(f.Body)
	if f.Version != stateVersion || f.Sum != hex.EncodeToString(sum[:]) {
		return corrupt(errors.New("its checksum is wrong"))
	}
	var b stateBody
	if err := decodeJSON(f.Body, &b); err != nil {
		return corrupt(err)
	}
	return State{roots: b.Roots, last: b.Last, floor: b.Floor, seen: b.Seen}, nil
}

func decodeJSON(data []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind its end")
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
