package host

import (
	"errors"
	"fmt"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Error is a failure with what status needs to say about it: which part of the
// agent, which resource, and the closed reason.
type Error struct {
	// Component is the agent's part: source, trust, guard, plan, fetch, store, systemd, apply, health.
	Component string
	// Element is the Ref of the resource, a URL, or "".
	Element string
	Reason  v1.Reason
	// Retry is false when trying again with the same manifest can't help.
	Retry bool
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Element == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Element, e.Err)
}

// Unwrap lets callers look at the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the Error in err's chain, or wraps err as an internal one.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Component: "agent", Reason: v1.ReasonInternal, Retry: true, Err: err}
}
