package trust

import (
	"errors"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Whatever panics below is malformed metadata, not the end of the agent.
func TestGuardedTurnsPanicsIntoErrors(t *testing.T) {
	for _, p := range []any{"ed25519: bad public key length: 2", errors.New("x"), 7} {
		err := guarded("fleet", v1.ReasonRollback, func() error { panic(p) })
		var e *Error
		if !errors.As(err, &e) || e.Reason != v1.ReasonMalformed || e.Role != "fleet" {
			t.Errorf("%v became %v", p, err)
		}
	}
	if err := guarded("fleet", v1.ReasonRollback, func() error { return nil }); err != nil {
		t.Error(err)
	}
}
