package cli_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/cli"
)

func TestReferenceIsUpToDate(t *testing.T) {
	want, err := os.ReadFile("../../../docs/reference/gpuaas-node-agent.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, stderr bytes.Buffer
	if code := cli.Run([]string{"docs"}, nil, &got, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("docs/reference/gpuaas-node-agent.md is out of date: run make generate")
	}
}
