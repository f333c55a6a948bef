package trust_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// tamper edits a stored state and makes its checksum right again.
func tamper(t *testing.T, s trust.State, edit func(body map[string]any)) []byte {
	t.Helper()
	var file map[string]json.RawMessage
	if err := json.Unmarshal(encodeState(t, s), &file); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(file["body"]))
	d.UseNumber()
	var body map[string]any
	if err := d.Decode(&body); err != nil {
		t.Fatal(err)
	}
	edit(body)
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	data, err := json.Marshal(map[string]any{"version": 1, "sum": hex.EncodeToString(sum[:]), "body": json.RawMessage(raw)})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decodeState(t *testing.T, data []byte) trust.State {
	t.Helper()
	s, err := trust.DecodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func forgetRoots(t *testing.T, s trust.State) trust.State {
	return decodeState(t, tamper(t, s, func(body map[string]any) { delete(body, "roots") }))
}

func stored(t *testing.T) (*trusttest.Repo, trust.State) {
	t.Helper()
	r := trusttest.New(t)
	r.NextRoot(func() {})
	r.SealTimestamp()
	_, s := accept(t, r.Input())
	return r, s
}

func TestStateRoundTrip(t *testing.T) {
	_, s := stored(t)
	data := encodeState(t, s)
	if again := encodeState(t, decodeState(t, data)); !bytes.Equal(data, again) {
		t.Error("another state came back")
	}
	var embedded struct{ Trust trust.State }
	if err := json.Unmarshal([]byte(`{"Trust":`+string(data)+`}`), &embedded); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, encodeState(t, embedded.Trust)) {
		t.Error("another state came back from within a document")
	}
	if zero := reload(t, trust.State{}); !zero.IsZero() {
		t.Error("the zero state isn't zero any more")
	}
}

func TestStateTruncatedAtEveryLength(t *testing.T) {
	_, s := stored(t)
	data := encodeState(t, s)
	for n := range data {
		_, err := trust.DecodeState(data[:n])
		checkError(t, err, v1.ReasonStateCorrupt, "")
	}
}

func TestStateFlippedBytes(t *testing.T) {
	_, s := stored(t)
	data := encodeState(t, s)
	for i := range data {
		for _, mask := range []byte{0x01, 0x20, 0x80} {
			bad := bytes.Clone(data)
			bad[i] ^= mask
			// A flip in a field's name may only change its case, which JSON forgives.
			got, err := trust.DecodeState(bad)
			if err == nil && !bytes.Equal(encodeState(t, got), data) {
				t.Fatalf("byte %d ^ %#x: another state was read", i, mask)
			}
			if r := trust.ReasonOf(err); err != nil && r != v1.ReasonStateCorrupt && r != v1.ReasonUnknownVersion {
				t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
			}
		}
	}
}

func TestStateOfANewerVersion(t *testing.T) {
	_, err := trust.DecodeState([]byte(`{"version":2,"sum":"","body":{}}`))
	checkError(t, err, v1.ReasonUnknownVersion, "")
	_, err = trust.DecodeState(append(encodeState(t, trust.State{}), "{}"...))
	checkError(t, err, v1.ReasonStateCorrupt, "")
}

// Each stored file, damaged below a right checksum, is found out.
func TestStateDamagedFiles(t *testing.T) {
	r, s := stored(t)
	for _, name := range []string{"timestamp", "snapshot", "targets", "manifest"} {
		for _, value := range []any{"", "AAAA", nil} {
			bad := decodeState(t, tamper(t, s, func(body map[string]any) { body["last"].(map[string]any)[name] = value }))
			_, err := trust.Restore(r.Bootstrap(), bad, team, node, trusttest.Start)
			checkError(t, err, v1.ReasonStateCorrupt, "")
			// With the repository at hand the node heals itself.
			in := r.Input()
			in.Stored = bad
			_, next := accept(t, in)
			if _, err := trust.Restore(r.Bootstrap(), next, team, node, trusttest.Start); err != nil {
				t.Errorf("%s = %v: not healed: %v", name, value, err)
			}
		}
	}
	bad := decodeState(t, tamper(t, s, func(body map[string]any) {
		body["roots"].([]any)[0].(map[string]any)["data"] = "e30="
	}))
	_, err := trust.Restore(r.Bootstrap(), bad, team, node, trusttest.Start)
	checkError(t, err, v1.ReasonStateCorrupt, "root")
	in := r.Input()
	in.Stored = bad
	refuse(t, in, v1.ReasonStateCorrupt, "root")
	// Set aside, the node begins again.
	in.Stored = trust.State{}
	accept(t, in)
}

func TestRestore(t *testing.T) {
	r, s := stored(t)
	late := trusttest.Start.AddDate(2, 0, 0)
	v, err := trust.Restore(r.Bootstrap(), reload(t, s), team, node, late)
	if err != nil {
		t.Fatal(err)
	}
	if v.Manifest().Generation != 1 || v.Trust().RootVersion != 2 {
		t.Errorf("generation %d, root %d", v.Manifest().Generation, v.Trust().RootVersion)
	}
	if role, _, expired := v.ExpiredAt(time.Unix(0, 0)); !expired || role != "timestamp" {
		t.Errorf("not expired, or not by the timestamp: %s", role)
	}
	for _, c := range []struct{ team, node string }{{team, "gpu-002"}, {"other", node}} {
		_, err := trust.Restore(r.Bootstrap(), s, c.team, c.node, late)
		checkError(t, err, v1.ReasonNoManifest, "manifest")
	}
	_, err = trust.Restore(r.Bootstrap(), trust.State{}, team, node, late)
	checkError(t, err, v1.ReasonNoManifest, "manifest")
	_, err = trust.Restore(nil, s, team, node, late)
	checkError(t, err, v1.ReasonBootstrapRoot, "root")
}

// What was verified under an older root is still enforced when a newer root replaced
// every key and nothing that they signed has arrived yet.
func TestRestoreAfterRotationWithoutNews(t *testing.T) {
	r, s := stored(t)
	r.NextRoot(func() {
		for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
			r.SetKeys(role, 1, trusttest.Key("new "+role))
		}
	})
	in := r.Input()
	in.Stored = s
	next := refuse(t, in, v1.ReasonUnsigned, "timestamp")
	v, err := trust.Restore(r.Bootstrap(), reload(t, next), team, node, trusttest.Start)
	if err != nil {
		t.Fatal(err)
	}
	if v.Trust().RootVersion != 3 || v.Trust().KeyIDs["timestamp"][0] != r.KeyID(trusttest.Key("new timestamp")) {
		t.Errorf("the accepted keys aren't those of the newest root: %+v", v.Trust())
	}
}
