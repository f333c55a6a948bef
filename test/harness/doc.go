// Package harness starts the real parts that tests and the demo need: systemd
// managers, git servers and OCI registries, on loopback and in folders of their
// own. What it starts it ends, and it leaves nothing behind.
package harness
