package loop

import "time"

// damper keeps repairs from becoming a storm: when the same host needs repair
// again and again (a crash loop, somebody else's configuration tool), each
// further pass waits longer. A quiet spell forgets.
type damper struct {
	repairs int
	last    time.Time
}

const (
	// damperQuiet is how long after the end of a wait nothing must happen.
	damperQuiet = 2 * time.Minute
	// damperFree is how many repairs go through at once.
	damperFree = 5
	damperMax  = 5 * time.Minute
)

// repaired notes a pass that changed the host without a new manifest.
func (d *damper) repaired(now time.Time) {
	d.until(now)
	d.repairs++
	d.last = now
}

// until returns when the next event-driven pass may run; the zero time means now.
func (d *damper) until(now time.Time) time.Time {
	var wait time.Duration
	if d.repairs >= damperFree {
		wait = backoff(d.repairs - damperFree)
	}
	if now.Sub(d.last) > wait+damperQuiet {
		d.repairs, wait = 0, 0
	}
	if wait == 0 {
		return time.Time{}
	}
	return d.last.Add(wait)
}

// backoff is 1s, 2s, 4s ... up to damperMax for the nth (from 0) failure.
func backoff(n int) time.Duration {
	if n > 20 {
		return damperMax
	}
	return min(time.Second<<max(n, 0), damperMax)
}
