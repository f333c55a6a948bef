// Package host holds the plain values that the agent's parts exchange about
// one machine: what was observed (Observed), what the agent owns (Inventory),
// and what is to be done (Step). It does nothing and imports nothing but the
// schema, so that planner, adapters and loop can share words without sharing
// code.
//
// Flow: observe fills Observed from store, files and systemd; plan compares it
// with the manifest's resources and the Inventory and returns Steps; apply
// runs Steps and updates the Inventory; journal keeps the Inventory.
package host
