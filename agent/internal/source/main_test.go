package source_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/source"
)

// TestMain lets the test binary be the child, as the agent's binary is its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == source.ChildCommand {
		if err := source.RunChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
