package cli

import (
	"fmt"

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
