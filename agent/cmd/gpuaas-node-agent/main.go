// Command gpuaas-node-agent keeps one host as the signed branch of its fleet says.
package main

import (
	"os"

	"github.com/gpuaas/node-agent/agent/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
