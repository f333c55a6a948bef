package loop_test

import (
	"context"
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	"github.com/gpuaas/node-agent/test/trusttest"
)

func targetPath() string { return trust.TargetPath(trusttest.Team, trusttest.Node) }

func contextThatEnds(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
