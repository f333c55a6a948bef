package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/signer/internal/pack"
)

func newPackage(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "package",
		Short: "Build, push and look at packages",
	}
	c.AddCommand(newPackageBuild(o), newPackagePush(o), newPackageInspect(o))
	return c
}

type buildOptions struct {
	dir, out, compression string
}

func newPackageBuild(o *options) *cobra.Command {
	var bo buildOptions
	c := &cobra.Command{
		Use:   "build DIR -o LAYOUT",
		Short: "Build a package from a folder with a package.yaml",
		Long: `Build a package from a folder with a package.yaml into an OCI image layout, and print its
digest. The same files give the same digest on every machine: times are zero, or
SOURCE_DATE_EPOCH, owners root, modes 0755 or 0644. Devices, setuid files and symlinks
that lead out of the package are refused.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			bo.dir = args[0]
			return runPackageBuild(o, bo)
		},
	}
	c.Flags().StringVarP(&bo.out, "output", "o", "", "folder for the layout; a layout that is there is replaced")
	c.Flags().StringVar(&bo.compression, "compression", string(pack.Gzip), "compression of layers: gzip or zstd")
	_ = c.MarkFlagRequired("output")
	return c
}

func runPackageBuild(o *options, bo buildOptions) error {
	compression := pack.Compression(bo.compression)
	if compression != pack.Gzip && compression != pack.Zstd {
		return exitcode.UsageError(fmt.Errorf("--compression %q: allowed are gzip and zstd", bo.compression))
	}
	var at time.Time
	if epoch := o.env("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || seconds < 0 {
			return exitcode.UsageError(fmt.Errorf("SOURCE_DATE_EPOCH is %q: it must be seconds since 1970", epoch))
		}
		at = time.Unix(seconds, 0)
	}
	report, finish := o.progress("packing")
	info, err := pack.Build(o.path(bo.dir), o.path(bo.out), pack.BuildOptions{Compression: compression, Time: at, Progress: report})
	finish()
	if err != nil {
		return err
	}
	o.say("built %s %s for %s in %s", info.Name, info.Version, cmp.Or(strings.Join(info.PlatformNames(), ", "), "all platforms"), bo.out)
	_, err = fmt.Fprintln(o.stdout, info.Digest)
	return err
}

type pushOptions struct {
	layout, ref, pin string
	plainHTTP        bool
}

func newPackagePush(o *options) *cobra.Command {
	var po pushOptions
	c := &cobra.Command{
		Use:   "push LAYOUT REF",
		Short: "Push a package to a registry, and pin it in the fleet repo",
		Long: `Push the package in an OCI image layout to REF, registry/repository[:tag], and print its
digest. The tag, the package's version by default, is for people: nodes pull by digest.
--pin writes reference, digest, version and platforms into packages/NAME.yaml and leaves
everything else in it alone. Credentials are those of docker login.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			po.layout, po.ref = args[0], args[1]
			return runPackagePush(c.Context(), o, po)
		},
	}
	c.Flags().StringVar(&po.pin, "pin", "", "file of the fleet repo to write the digest to, packages/NAME.yaml")
	c.Flags().BoolVar(&po.plainHTTP, "plain-http", false, "allow HTTP without TLS to other machines; loopback may always")
	return c
}

func runPackagePush(ctx context.Context, o *options, po pushOptions) error {
	if po.pin != "" {
		// Rather now than after the push.
		info, err := pack.Inspect(o.path(po.layout))
		if err != nil {
			return err
		}
		if err := pack.CheckPin(o.path(po.pin), info.Name); err != nil {
			return err
		}
	}
	report, finish := o.progress("pushing")
	pushed, err := pack.Push(ctx, o.path(po.layout), po.ref, pack.RemoteOptions{PlainHTTP: po.plainHTTP, Progress: report})
	finish()
	if err != nil {
		return err
	}
	o.say("pushed %s %s to %s:%s", pushed.Info.Name, pushed.Info.Version, pushed.Repository, pushed.Tag)
	if po.pin != "" {
		changed, err := pack.Pin(o.path(po.pin), pushed)
		if err != nil {
			return err
		}
		if changed {
			o.say("pinned it in %s", po.pin)
		} else {
			o.say("%s pins it already", po.pin)
		}
	}
	_, err = fmt.Fprintln(o.stdout, pushed.Digest)
	return err
}

func newPackageInspect(o *options) *cobra.Command {
	var format output
	var plainHTTP bool
	c := &cobra.Command{
		Use:   "inspect LAYOUT|REF@DIGEST",
		Short: "Show what is in a package",
		Long:  `Show what is in a package, in an OCI image layout or in a registry.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runPackageInspect(c.Context(), o, args[0], plainHTTP, format)
		},
	}
	format.register(c, "table", "json", "yaml")
	c.Flags().BoolVar(&plainHTTP, "plain-http", false, "allow HTTP without TLS to other machines; loopback may always")
	return c
}

func runPackageInspect(ctx context.Context, o *options, what string, plainHTTP bool, format output) error {
	var info *pack.Info
	var err error
	if _, serr := os.Stat(filepath.Join(o.path(what), "oci-layout")); serr == nil {
		info, err = pack.Inspect(o.path(what))
	} else {
		info, err = pack.InspectRemote(ctx, what, pack.RemoteOptions{PlainHTTP: plainHTTP})
	}
	if err != nil {
		return err
	}
	return format.print(o.stdout, info, func(w io.Writer) error { return packageTable(w, info) })
}

func packageTable(w io.Writer, info *pack.Info) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "Package\t%s\nVersion\t%s\nReference\t%s\nDigest\t%s\n", info.Name, info.Version, info.Reference, info.Digest)
	for _, p := range info.Platforms {
		fmt.Fprintf(t, "\nPlatform\t%s\nManifest\t%s\nContent\t%d entries, %d bytes\n", p.Platform, p.Digest, p.Entries, p.UnpackedSize)
		for _, l := range p.Layers {
			fmt.Fprintf(t, "Layer\t%s, %d bytes, %s\n", l.Digest, l.Size, l.MediaType)
		}
		if len(p.EntryPoints) > 0 {
			fmt.Fprintf(t, "Entry points\t%s\n", strings.Join(p.EntryPoints, ", "))
		}
		if len(p.Units) > 0 {
			fmt.Fprintf(t, "Units\t%s\n", strings.Join(p.Units, ", "))
		}
	}
	return t.Flush()
}
