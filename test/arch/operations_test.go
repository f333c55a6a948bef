package arch

import (
	"os"
	"strings"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// An operator who meets a reason in status finds it in the runbook.
func TestEveryReasonIsInTheRunbook(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range v1.Reasons() {
		if !strings.Contains(string(doc), "| `"+string(r)+"` |") {
			t.Errorf("docs/operations.md has no row for %s", r)
		}
	}
}
