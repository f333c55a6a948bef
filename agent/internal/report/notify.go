package report

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier speaks sd_notify(3). Where nobody listens it does nothing. It is not
// safe for concurrent use, but for the watchdog that it runs itself.
type Notifier struct {
	alive chan struct{}
}

// busyFor is how long the loop may work on one thing, such as a large download
// over a slow line, before the watchdog lets systemd restart the agent.
const busyFor = time.Hour

// NewNotifier returns a Notifier and starts the watchdog if systemd asks for one
// (WatchdogSec=).
func NewNotifier() *Notifier {
	n := &Notifier{alive: make(chan struct{}, 1)}
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		go n.watchdog(interval / 2)
	}
	return n
}

// watchdog pings as long as the loop showed a sign of life within busyFor. The
// loop also sleeps, but never longer than between two polls.
func (n *Notifier) watchdog(every time.Duration) {
	last := time.Now()
	for range time.Tick(every) {
		select {
		case <-n.alive:
			last = time.Now()
		default:
		}
		if time.Since(last) < busyFor {
			send(daemon.SdNotifyWatchdog)
		}
	}
}

// Ready says that the agent works.
func (n *Notifier) Ready() { send(daemon.SdNotifyReady) }

// Status is the line that systemctl status shows.
func (n *Notifier) Status(text string) { send("STATUS=" + text) }

// Stopping says that the agent is on its way out.
func (n *Notifier) Stopping() { send(daemon.SdNotifyStopping) }

// Alive is a sign of life for the watchdog.
func (n *Notifier) Alive() {
	select {
	case n.alive <- struct{}{}:
	default:
	}
}

// send ignores errors: that nobody listens is not worth a log line at each call.
func send(state string) { _, _ = daemon.SdNotify(false, state) }
