package loop

import (
	"fmt"
	"slices"
)

// Phase is where the loop is with the newest manifest.
type Phase string

// The phases.
const (
	Idle       Phase = "Idle"       // nothing to do, or nothing known yet
	Verified   Phase = "Verified"   // a new manifest was verified
	Planned    Phase = "Planned"    // its steps are known and the guard permits them
	Staged     Phase = "Staged"     // its packages are on the node
	Applying   Phase = "Applying"   // steps run
	Probation  Phase = "Probation"  // services are being watched
	Committed  Phase = "Committed"  // the host is as the manifest says
	RolledBack Phase = "RolledBack" // the host is going back to the last good manifest
	Held       Phase = "Held"       // an older manifest is enforced; the newest failed or is refused
)

// transitions is the one table of what may follow what. Every phase may go to
// Idle (a pass begins anew, also after a crash) and stay as it is.
var transitions = map[Phase][]Phase{
	Idle:       {Verified, Planned, Committed, Held},
	Verified:   {Planned, Held},
	Planned:    {Staged, Committed, Held, RolledBack},
	Staged:     {Planned, Applying, Probation, Committed, Held},
	Applying:   {Probation, Committed, Held, RolledBack},
	Probation:  {Planned, Committed, RolledBack},
	Committed:  {Verified, Planned, Held},
	RolledBack: {Held, Verified, Planned},
	Held:       {Verified, Planned, RolledBack},
}

// next returns to, or an error when the table has no such transition: a bug of
// the loop, reported as such rather than acted upon.
func (p Phase) next(to Phase) (Phase, error) {
	if p == to || to == Idle || slices.Contains(transitions[p], to) {
		return to, nil
	}
	return p, fmt.Errorf("phase %s can't follow %s", to, p)
}
