package report

import (
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier speaks sd_notify(3). Where nobody listens it does nothing. Its methods
// are safe for concurrent use.
type Notifier struct {
	// since is when the loop began to work on what it works on, in Unix
	// seconds; 0 while it waits.
	since atomic.Int64
}

// busyFor is how long the loop may work on one thing, such as a large download
// over a slow line, before the watchdog lets systemd restart the agent.
const busyFor = time.Hour

// NewNotifier returns a Notifier and starts the watchdog if systemd asks for one
// (WatchdogSec=).
func NewNotifier() *Notifier {
	n := &Notifier{}
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		go n.watchdog(interval / 2)
	}
	return n
}

// watchdog pings for as long as the loop isn't stuck.
func (n *Notifier) watchdog(every time.Duration) {
	for now := range time.Tick(every) {
		if !n.stuck(now) {
			send(daemon.SdNotifyWatchdog)
		}
	}
}

func (n *Notifier) stuck(now time.Time) bool {
	since := n.since.Load()
	return since != 0 && now.Sub(time.Unix(since, 0)) > busyFor
}

// Working says that the loop begins a piece of work.
func (n *Notifier) Working() { n.since.Store(time.Now().Unix()) }

// Waiting says that the loop has nothing to do, for however long.
func (n *Notifier) Waiting() { n.since.Store(0) }

// Ready says that the agent works.
func (n *Notifier) Ready() { send(daemon.SdNotifyReady) }

// Status is the line that systemctl status shows.
func (n *Notifier) Status(text string) { send("STATUS=" + text) }

// Stopping says that the agent is on its way out.
func (n *Notifier) Stopping() { send(daemon.SdNotifyStopping) }

// send ignores errors: that nobody listens is not worth a log line at each call.
func send(state string) { _, _ = daemon.SdNotify(false, state) }
