// Package plan decides what has to change on a node. It is pure: it takes the
// manifest's resources, what was observed and what the agent owns, and returns
// steps in the order in which they run, each with its reason. It knows no
// clock, disk, network or logger, and the same input always gives the same plan.
//
// Flow: the loop computes a plan, refuses it if it has conflicts, runs the
// staging steps, fills in unit contents that come from packages, computes again
// and applies. An empty plan means that the node is as it should be; after a
// plan was applied, the next one is empty.
//
// Ownership. The agent changes and removes only what its Inventory lists. What
// exists and isn't listed is a conflict unless the task says adopt: true, or
// unless it is in every respect as the manifest wants it: then nothing could be
// lost, and the agent takes it into its inventory. That is also how a node whose
// inventory was lost finds its way back. Below the package root everything is
// the agent's own, so an unlisted package is listed again without a question.
//
// What apply has to keep for plans to come to an end: a step that changes a
// resource leaves the inventory saying what the step asked for, even where the
// host was so already; StartService and RestartService save a PendingRestart
// before and the inputs after; StopService clears a wanted service's inputs and
// pending restart; a removal drops its resource, ForgetResource drops the one of
// its Ref; DisableUnit clears Enabled.
//
// Conflicts refuse the whole plan. The steps beside them are still there so that
// an operator sees everything, but applying some of them would leave a node
// that matches no manifest at all.
package plan
