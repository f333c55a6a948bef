package points

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cut takes one point out.
type cut struct {
	point, name string
	file        string
	// swaps are pairs: what the file says, what it says without the point.
	swaps []string
	pkg   string
	// test must pass with the point and fail without it.
	test string
}

const (
	verification = "./schema/trust"
	chain        = "schema/trust/chain.go"
	verify       = "schema/trust/verify.go"
	state        = "schema/trust/state.go"
	lookup       = "schema/trust/lookup.go"
	vet          = "schema/trust/vet.go"
	failure      = "schema/trust/error.go"
)

var cuts = []cut{
	{"1", "stored roots are not walked", verify, []string{
		"c.storedRoots(in.Stored.roots, 0)", "c.storedRoots(nil, 0)",
	}, verification, "TestAttackHiddenRoot"},
	{"1", "a root is kept only if all verified", verify, []string{
		"next.roots = slices.Concat(stored, fresh)", "kept := slices.Concat(stored, fresh)",
		"next.seen, next.last,", "next.roots = kept; next.seen, next.last,",
	}, verification, "TestRootIsKeptWhenTheRestFails"},
	{"1", "the root's version may fall", chain, []string{
		"v < c.floor.Root {", "v < 0 {",
	}, verification, "TestAttackHiddenRoot"},

	{"2", "the loop acts before the floor is durable", "agent/internal/loop/poll.go", []string{
		"saveErr := l.saveTrust(state); saveErr != nil {", "saveErr := l.saveTrust(state); saveErr != nil && false {",
	}, "./agent/internal/loop", "TestNothingIsDoneBeforeTheFloorIsDurable"},
	{"2", "no floor", chain, []string{"if version < floor {", "if false {"}, verification, "TestFloorHoldsAlone"},
	{"2", "the floor is never reset", state, []string{
		"return floor{Root: f.Root}", "return f",
	}, verification, "TestAttackFastForwardAndRecovery"},
	{"2", "an added key resets the floor", state, []string{
		"range f.TimestampKeys {", "range keys {", "!slices.Contains(keys, k)", "!slices.Contains(f.TimestampKeys, k)",
	}, verification, "TestFloorHoldsWithoutStoredFiles"},
	{"2", "stored state without a checksum", state, []string{
		"f.Sum != hex.EncodeToString(sum[:])", "f.Sum != hex.EncodeToString(sum[:]) && false",
	}, verification, "TestStateFlippedBytes"},

	{"3", "no recover", failure, []string{"p := recover()", "p := any(nil)"}, verification, "TestGuardedTurnsPanicsIntoErrors"},
	{"3", "keys of delegations are not looked at", vet, []string{
		`if _, err := publicKey(keys[id]); err != "" {`, `if _, err := publicKey(keys[id]); false {`,
	}, verification, "TestAttackSignatures"},

	{"4", "verification with go-tuf's updater", "schema/trust/files.go", []string{
		"import (", "import (\n\t_ \"github.com/theupdateframework/go-tuf/v2/metadata/updater\"",
	}, "./test/arch", "TestVerificationHasNoUpdater"},
	{"4", "no lock of the state", "agent/internal/journal/journal.go", []string{
		"unix.LOCK_EX|unix.LOCK_NB", "unix.LOCK_UN",
	}, "./agent/internal/journal", "TestSecondAgentIsKeptOut"},

	{"5", "the time last seen doesn't count", verify, []string{
		"latest(in.Now, in.Stored.seen, in.BuildTime)", "latest(in.Now, in.BuildTime)",
	}, verification, "TestAttackClockSetBack"},
	{"5", "the build time doesn't count", verify, []string{
		"latest(in.Now, in.Stored.seen, in.BuildTime)", "latest(in.Now, in.Stored.seen)",
	}, verification, "TestAttackFreeze"},
	{"5", "any clock is remembered", verify, []string{
		"next.seen = c.vouchedTime(in.Stored.seen)", "next.seen = ref",
	}, verification, "TestClockJumpHeals"},

	{"6", "the manifest's bytes are not compared", lookup, []string{
		"return signed.VerifyLengthHashes(data) })", "return nil })",
	}, verification, "TestSpecTargetLengthHashes"},
	{"6", "another node's manifest will do", verify, []string{"if m.Node != set.Node {", "if false {"}, verification, "TestAttackContent"},
	{"6", "the generation may fall", verify, []string{"case m.Generation < f.Generation:", "case false:"}, verification, "TestAttackRollback"},
	{"6", "a generation may change its content", verify, []string{
		"case m.Generation == f.Generation && f.Digest != digest(data):", "case false:",
	}, verification, "TestAttackRollback"},
	{"6", "any bin will do", lookup, []string{
		"c.loadBin(d.Name, BinOf(d.Name, path))", `c.loadBin(d.Name, BinPrefix(d.Name)+"-00")`,
	}, verification, "TestSpecWrongBin"},

	{"7", "a team may delegate", vet, []string{
		"if len(d.Roles) > 0 {", "if false {",
	}, verification, "TestAttackDelegations"},
	{"7", "one team twice", vet, []string{"if seen[r.Name] {", "if false {"}, verification, "TestAttackDelegations"},
	{"7", "any role name", vet, []string{
		"err := CheckTeam(r.Name); err != nil {", "err := CheckTeam(r.Name); false {",
	}, verification, "TestAttackNames"},
	{"7", "hash prefixes", vet, []string{"if len(r.PathHashPrefixes) > 0 {", "if false {"}, verification, "TestAttackDelegations"},
	{"7", "as many roles as there are", lookup, []string{
		"len(visited) >= maxDelegators", "false",
	}, verification, "TestSpecDelegationOrder"},

	{"8", "a snapshot may lose an entry", chain, []string{
		"if stored == nil || c.tuf.Timestamp == nil {", "if true {",
	}, verification, "TestAttackRollback"},

	{"9", "half a commit moves the floor", verify, []string{
		"next.seen = c.vouchedTime(in.Stored.seen)",
		"next.floor = c.floor; if c.tuf.Timestamp != nil { next.floor.Timestamp = c.tuf.Timestamp.Signed.Version }",
	}, verification, "TestHalfPublishedCommitMovesNothing"},

	{"10", "times as the clock gives them", "signer/internal/sign/authority.go", []string{
		"now.UTC().Truncate(time.Second)", "now", "Add(p.life(role)).Truncate(time.Second)", "Add(p.life(role))",
	}, "./signer/internal/sign", "TestTimesAreWholeSecondsUTC"},
}

const root = "../.."

// The threat model names, for each point, the tests that fail without it.
func TestThreatModelListsThePoints(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "docs/threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if number, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| ") {
			rows[number] += line
		}
	}
	for _, c := range cuts {
		if !strings.Contains(rows[c.point], "`"+c.test+"`") {
			t.Errorf("docs/threat-model.md: the row of point %s doesn't name %s", c.point, c.test)
		}
	}
}
