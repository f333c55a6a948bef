// Package loop decides when the agent works and carries one reconcile from the
// signed branch to a committed or rolled back host. It is the only code that
// drives the adapters, and one goroutine runs it: the host is never changed by
// two hands at once.
//
// One pass:
//
//	poll      source.Poll -> trust.Verify -> journal (floor before anything else)
//	choose    the newest verified manifest, or the last good one while that is held
//	judge     guard and conflicts: a refused manifest changes nothing
//	stage     packages, while the host behaves as before
//	apply     the planner's steps, in order
//	probation health of every service that was touched
//	commit    last good = target, garbage collected; or roll back and hold
//	report    status document, metrics, audit log, systemd
//
// Recovery after a crash at any point is a new pass: the journal is loaded, the
// host observed, the plan computed again.
package loop
