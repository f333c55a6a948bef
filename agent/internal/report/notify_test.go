package report

import (
	"testing"
	"time"
)

// An agent that waits, for however long, is not stuck; one that works is, in the end.
func TestOnlyWorkCanBeStuck(t *testing.T) {
	n := NewNotifier()
	far := time.Now().Add(24 * time.Hour)
	if n.stuck(far) {
		t.Error("a loop that waits counts as stuck")
	}
	n.Working()
	if n.stuck(time.Now().Add(busyFor / 2)) {
		t.Error("half an hour of work counts as stuck")
	}
	if !n.stuck(far) {
		t.Error("a day of work doesn't count as stuck")
	}
	n.Waiting()
	if n.stuck(far) {
		t.Error("a loop that waits again counts as stuck")
	}
}
