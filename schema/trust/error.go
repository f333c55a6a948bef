package trust

import (
	"errors"
	"fmt"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Error says why something is not believed. Every error of this package is one.
type Error struct {
	// Reason is one of the verification reasons of schema/v1.
	Reason v1.Reason
	// Role is the TUF role, or "manifest", that failed; "" if none is concerned.
	Role string
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Role == "" {
		return fmt.Sprintf("%v (%s)", e.Err, e.Reason)
	}
	return fmt.Sprintf("cannot trust %s: %v (%s)", e.Role, e.Err, e.Reason)
}

// Unwrap gives the cause, for instance the strict.Errors of a manifest.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf is the Reason of an error of this package, or ReasonInternal.
func ReasonOf(err error) v1.Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return v1.ReasonInternal
}

func fail(reason v1.Reason, role, format string, args ...any) *Error {
	return &Error{Reason: reason, Role: role, Err: fmt.Errorf(format, args...)}
}

// withReason is err with another Reason.
func withReason(err error, reason v1.Reason) error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Reason: reason, Err: err}
	}
	return &Error{Reason: reason, Role: e.Role, Err: e.Err}
}

// manifestRole stands in Error.Role for the manifest, which is no role.
const manifestRole = "manifest"

// guarded runs one step of go-tuf. Metadata that isn't verified yet can make it
// panic (a null entry, an Ed25519 key of the wrong length); that is bad
// metadata like any other, and must not take the agent down.
func guarded(role string, badVersion v1.Reason, step func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fail(v1.ReasonMalformed, role, "its decoding panicked: %v", p)
		}
	}()
	return classify(role, badVersion, step())
}

// classify gives a go-tuf error its Reason. What a bad version number means
// depends on the step, so the caller says it.
func classify(role string, badVersion v1.Reason, err error) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return &Error{Reason: v1.ReasonUnsigned, Role: role, Err: err}
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return &Error{Reason: v1.ReasonExpired, Role: role, Err: err}
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return &Error{Reason: badVersion, Role: role, Err: err}
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return &Error{Reason: v1.ReasonMixAndMatch, Role: role, Err: err}
	default:
		return &Error{Reason: v1.ReasonMalformed, Role: role, Err: err}
	}
}
