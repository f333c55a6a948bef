package cli

import (
	"errors"
	"fmt"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func lastError(e v1.StatusError) error {
	where := e.Component
	if e.Element != "" {
		where += " " + e.Element
	}
	return fmt.Errorf("%s: %s: %s", e.Category, where, e.Message)
}

func conditionError(c v1.Condition) error {
	return fmt.Errorf("%s is %s: %s: %s", c.Type, c.Status, c.Reason, c.Message)
}

// verifyError gives a failed verification its reason and its exit code.
func verifyError(err error) error {
	reason := trust.ReasonOf(err)
	if e := new(host.Error); errors.As(err, &e) {
		reason = e.Reason
	}
	code := exitcode.Failed
	if reason == v1.ReasonExpired {
		code = exitcode.Stale
	}
	return &exitcode.Error{Code: code, Err: fmt.Errorf("%s: %w", reason, err)}
}
