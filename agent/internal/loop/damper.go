package loop

import "time"

// damper keeps repairs from becoming a storm: when the same host needs repair
// again and again (a crash loop, somebody else's configuration tool), each
// further pass waits longer. A quiet spell of window forgets.
type damper struct {
	recent []time.Time
}

const (
	damperWindow = 2 * time.Minute
	// damperFree is how many repairs in a window go through at once.
	damperFree = 5
	damperMax  = 5 * time.Minute
)

// repaired notes a pass that changed the host without a new manifest.
func (d *damper) repaired(now time.Time) {
	d.expire(now)
	d.recent = append(d.recent, now)
}

// until returns when the next event-driven pass may run; zero means now.
func (d *damper) until(now time.Time) time.Time {
	d.expire(now)
	n := len(d.recent) - damperFree
	if n < 0 {
		return time.Time{}
	}
	return d.recent[len(d.recent)-1].Add(backoff(n, damperMax))
}

func (d *damper) expire(now time.Time) {
	// While damped, passes are rarer than the window: keep what is inside the
	// longest wait, or the damper would forget exactly when it is needed.
	keep := damperWindow
	if len(d.recent) > damperFree {
		keep = damperMax + damperWindow
	}
	for len(d.recent) > 0 && now.Sub(d.recent[0]) > keep {
		d.recent = d.recent[1:]
	}
}

// backoff is 1s, 2s, 4s ... up to limit for the nth (from 0) failure.
func backoff(n int, limit time.Duration) time.Duration {
	if n > 20 {
		return limit
	}
	return min(time.Second<<max(n, 0), limit)
}
