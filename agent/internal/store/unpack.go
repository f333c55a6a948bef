package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// ChildCommand is the hidden command that must call RunChild.
const ChildCommand = "package-unpack"

// RunChild is the hidden command: it unpacks what the request on stdin says
// and writes the answer to stdout. It is for Unpack and nobody else.
func RunChild(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	// A limit on file sizes shall be an error of the write, not the end of the process.
	signal.Ignore(unix.SIGXFSZ)
	return child.Serve(ctx, stdin, stdout, func(ctx context.Context, j job) (struct{}, error) {
		return struct{}{}, j.run(ctx)
	})
}

// job is one unpacking.
type job struct {
	Root    string  `json:"root"`
	Limits  Limits  `json:"limits"`
	Package Package `json:"package"`
}

// run unpacks on a bench in staging and then publishes. Its errors are *host.Error.
func (j job) run(ctx context.Context) error {
	root, err := os.OpenRoot(j.Root)
	if err != nil {
		return diskError(j.Package.Name, "cannot open the package folder", err)
	}
	defer func() { _ = root.Close() }()
	b, err := newBench(root, j.Package.Name)
	if err != nil {
		return diskError(j.Package.Name, "cannot make a folder in staging", err)
	}
	err = j.unpack(ctx, root, b)
	if cerr := b.close(); err == nil && cerr != nil {
		return diskError(j.Package.Name, "cannot clean up staging", cerr)
	}
	return err
}

func (j job) unpack(ctx context.Context, root *os.Root, b *bench) error {
	tree := b.path("tree")
	if err := root.Mkdir(tree, 0o755); err != nil {
		return diskError(j.Package.Name, "cannot unpack", err)
	}
	into, err := root.OpenRoot(tree)
	if err != nil {
		return diskError(j.Package.Name, "cannot unpack", err)
	}
	defer func() { _ = into.Close() }()
	x := newExtractor(into, j.Limits)
	defer x.close()
	for i, l := range j.Package.Layers {
		if err := j.layer(ctx, x, l); err != nil {
			return j.explain(ctx, i, l, err)
		}
	}
	if err := x.finish(); err != nil {
		return j.explain(ctx, len(j.Package.Layers)-1, Layer{}, err)
	}
	list := FileList{Version: listVersion, Name: j.Package.Name, Digest: j.Package.Digest, Entries: x.list()}
	if err := j.publish(root, tree, list); err != nil {
		return diskError(j.Package.Name, "cannot put the unpacked package in its place", err)
	}
	return nil
}

// layer unpacks one archive and verifies that it is the right one.
func (j job) layer(ctx context.Context, x *extractor, l Layer) error {
	f, err := os.OpenFile(l.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	packed := digest.NewReader(&stoppable{ctx, io.LimitReader(f, l.Size+1)})
	defer packed.Close()
	unpackErr := j.archive(x, l.MediaType, packed)
	// A wrong digest explains any other trouble with the archive.
	sum, size, err := packed.Sum()
	switch {
	case err != nil:
		return errors.Join(unpackErr, err)
	case sum != l.Digest || size != l.Size:
		return &damagedError{want: l.Digest, got: sum, path: l.Path}
	}
	return unpackErr
}

func (j job) archive(x *extractor, mediaType string, packed *digest.Reader) error {
	plain, err := decompress(mediaType, packed)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	return x.archive(&meter{r: plain, limits: j.Limits, extractor: x, packed: packed.Size})
}

// damagedError says that a layer's file isn't what its digest says.
type damagedError struct{ want, got, path string }

func (e *damagedError) Error() string {
	return fmt.Sprintf("%s is damaged: its digest is %s instead of %s; it must be fetched again", e.path, e.got, e.want)
}

// refusedError is a reason why an archive isn't taken.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func refuse(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// explain turns what went wrong with a layer into what status shows.
func (j job) explain(ctx context.Context, i int, l Layer, err error) error {
	if ctx.Err() != nil {
		return &host.Error{Component: component, Element: "package/" + j.Package.Name, Reason: v1.ReasonInternal, Retry: true,
			Err: fmt.Errorf("cannot unpack: %w", context.Cause(ctx))}
	}
	var (
		damaged *damagedError
		refused *refusedError
		system  unix.Errno
	)
	switch {
	case errors.As(err, &damaged):
		return &host.Error{Component: component, Element: "package/" + j.Package.Name, Reason: v1.ReasonDigestMismatch, Retry: true, Err: damaged}
	case errors.As(err, &refused):
		return invalid(j.Package.Name, fmt.Errorf("cannot unpack layer %d: %w; build the package again without it", i, refused))
	case errors.As(err, &system):
		return diskError(j.Package.Name, "cannot unpack", err)
	}
	return invalid(j.Package.Name, fmt.Errorf("cannot unpack layer %d: it is no valid %s archive: %w", i, l.MediaType, err))
}

// publish makes the tree a version: first its list, then by one rename the
// tree itself, each durable before the next.
func (j job) publish(root *os.Root, tree string, list FileList) error {
	folder := rel(j.Package.Name, j.Package.Digest)
	if err := makeFolder(filepath.Join(j.Root, path.Dir(folder)), 0o755); err != nil {
		return err
	}
	if err := writeList(filepath.Join(j.Root, folder)+listSuffix, list); err != nil {
		return err
	}
	err := root.Rename(tree, folder)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		// Another process was faster, or a folder without a list was there. Ours is
		// known to be right, and at no moment shall there be none.
		err = exchange(root, tree, folder)
	}
	if err != nil {
		return err
	}
	return syncDir(root, path.Dir(folder))
}

// list returns the entries of the tree, sorted by path.
func (x *extractor) list() []Entry {
	entries := make([]Entry, 0, len(x.entries))
	for _, e := range x.entries {
		entries = append(entries, *e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries
}

// stoppable ends reading when its context ends.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}
