// Command gpuaas-signer renders, signs and publishes what a fleet of nodes runs.
package main

import (
	"os"

	"github.com/gpuaas/node-agent/signer/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
