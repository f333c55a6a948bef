package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/buildinfo"
)

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(o.stdout, "gpuaas-signer %s %s/%s %s\n", buildinfo.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
