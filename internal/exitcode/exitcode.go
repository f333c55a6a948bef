// Package exitcode holds the exit codes of both binaries, the same everywhere,
// and the error that carries one to main.
package exitcode

import (
	"errors"
	"fmt"
)

// The exit codes.
const (
	OK      = 0 // as desired
	Failed  = 1 // failed
	Usage   = 2 // the command line is wrong
	Older   = 3 // converged on an older generation: held or rolled back
	Stale   = 4 // metadata expired, or source unreachable past its limit
	Pending = 5 // drift, or a pending change, was found
)

// Help is the paragraph that every command's help ends with.
const Help = `Exit codes: 0 as desired, 1 failed, 2 usage, 3 converged on an older generation
(held or rolled back), 4 stale (metadata expired or source unreachable past its
limit), 5 drift or pending change found.`

// Error ends a command with a code. A nil Err means that everything was said already.
type Error struct {
	Code int
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap lets callers look at the cause.
func (e *Error) Unwrap() error { return e.Err }

// Silent returns the error that ends a command with code and prints nothing; nil for OK.
func Silent(code int) error {
	if code == OK {
		return nil
	}
	return &Error{Code: code}
}

// UsageError marks err as one of the command line.
func UsageError(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: Usage, Err: err}
}

// Of returns the code of err, and the message to print, "" for none.
func Of(err error) (code int, message string) {
	if err == nil {
		return OK, ""
	}
	var e *Error
	if errors.As(err, &e) {
		if e.Err == nil {
			return e.Code, ""
		}
		return e.Code, err.Error()
	}
	return Failed, err.Error()
}
