// Package child runs a piece of the agent's own work in a process of its own:
// a hidden command of the same binary. What needs much memory, or reads what
// strangers sent, ends with that process, so the agent itself stays small and
// can be rid of it at any moment.
//
// Parties: Run in the agent, Serve in the child. The request goes in as one
// JSON value on stdin; the answer comes back as one bounded JSON value on
// stdout, either a result or a failure with the fields of host.Error; lines on
// stderr are progress, for whoever asked for them. The child leads its own
// process group, which is killed when the context ends, and it dies with its
// parent.
package child
