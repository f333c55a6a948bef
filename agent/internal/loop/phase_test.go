package loop

import (
	"slices"
	"testing"
	"time"
)

func TestEveryPhaseIsInTheTableAndReachable(t *testing.T) {
	all := []Phase{Idle, Verified, Planned, Staged, Applying, Probation, Committed, RolledBack, Held}
	if len(transitions) != len(all) {
		t.Errorf("the table has %d rows, %d phases are known", len(transitions), len(all))
	}
	reached := []Phase{Idle}
	for i := 0; i < len(reached); i++ {
		for _, to := range transitions[reached[i]] {
			if _, ok := transitions[to]; !ok {
				t.Errorf("%s leads to %s, which has no row", reached[i], to)
			}
			if !slices.Contains(reached, to) {
				reached = append(reached, to)
			}
		}
	}
	for _, p := range all {
		if !slices.Contains(reached, p) {
			t.Errorf("nothing leads to %s", p)
		}
		if next, err := p.next(Idle); err != nil || next != Idle {
			t.Errorf("%s can't begin anew: %v", p, err)
		}
	}
	// A host is never changed by what wasn't planned, nor committed out of a failure.
	for _, bad := range [][2]Phase{{Verified, Applying}, {Idle, Applying}, {RolledBack, Committed}, {Held, Committed}, {Probation, Applying}} {
		if next, err := bad[0].next(bad[1]); err == nil || next != bad[0] {
			t.Errorf("%s to %s is allowed", bad[0], bad[1])
		}
	}
}

func TestDamperLetsSomeThroughAndThenWaitsLonger(t *testing.T) {
	var d damper
	now := time.Unix(1000, 0)
	for i := range damperFree {
		if u := d.until(now); u.After(now) {
			t.Fatalf("repair %d has to wait until %v", i, u)
		}
		d.repaired(now)
	}
	var waits []time.Duration
	for range 12 {
		until := d.until(now)
		waits = append(waits, until.Sub(now))
		now = until
		d.repaired(now)
	}
	if waits[0] != time.Second || !slices.IsSorted(waits) || waits[len(waits)-1] != damperMax {
		t.Errorf("waits are %v", waits)
	}
	now = now.Add(damperMax + damperQuiet + 1)
	if u := d.until(now); u.After(now) {
		t.Errorf("after a quiet spell the next repair waits until %v", u)
	}
}
