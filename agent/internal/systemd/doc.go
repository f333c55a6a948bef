// Package systemd speaks to a systemd manager over D-Bus: the machine's own
// (System) or a user's (User). It is the only importer of go-systemd and godbus.
//
// Parties: a Client asks and orders; a Watch, on a connection of its own, tells
// what changes. In: unit names, orders. Out: host.UnitState, plain values; errors
// are *host.Error.
//
// Both use the manager's private socket where they may, since it works without a
// message bus and while that restarts; else the bus. The private socket is cut
// when the manager re-executes itself, the bus when the bus restarts: a Client
// dials again when it is next used, and a Watch at once, after which it says that
// anything may have changed.
package systemd
