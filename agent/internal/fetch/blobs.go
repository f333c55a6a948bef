package fetch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// partialSuffix ends the name of a blob that is not complete.
const partialSuffix = ".partial"

// blobs is the folder of verified blobs. As a reader it finds only what is there.
type blobs struct{ dir string }

// missingError tells apart what a download can mend.
type missingError struct{ digest string }

func (e *missingError) Error() string { return "blob " + e.digest + " is not here" }

func (b blobs) folder() string               { return filepath.Join(b.dir, "sha256") }
func (b blobs) file(name string) string      { return filepath.Join(b.folder(), name) }
func (b blobs) path(dgst string) string      { return b.file(digest.Hex(dgst)) }
func (b blobs) partial(d string) string      { return b.path(d) + partialSuffix }
func blobHex(name string) string             { return strings.TrimSuffix(name, partialSuffix) }
func (blobs) prepare([]oci.Descriptor) error { return nil }

func (b blobs) create() error {
	if err := os.MkdirAll(b.folder(), 0o700); err != nil {
		return diskError("cannot make the blob folder", err)
	}
	return nil
}

// read implements reader: a small blob, its hash verified again.
func (b blobs) read(k kind, dgst string) ([]byte, error) {
	f, err := os.Open(b.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{dgst}
	}
	if err != nil {
		return nil, diskError("cannot read a blob", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, k.limit+1))
	if err != nil {
		return nil, diskError("cannot read a blob", err)
	}
	if int64(len(data)) > k.limit || digest.Of(data) != dgst {
		return nil, &missingError{dgst} // damaged, or not what we wrote: fetch it again
	}
	return data, nil
}

// layer implements reader. Its hash was verified before it got its name; now
// only its size is.
func (b blobs) layer(d oci.Descriptor) (string, error) {
	path := b.path(d.Digest.String())
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &missingError{d.Digest.String()}
	}
	if err != nil {
		return "", diskError("cannot look at a blob", err)
	}
	if !info.Mode().IsRegular() || info.Size() != d.Size {
		return "", &missingError{d.Digest.String()}
	}
	return path, nil
}

// write puts a small blob, whose hash the caller verified, into the folder.
func (b blobs) write(dgst string, data []byte) error {
	if err := durable.WriteFile(b.path(dgst), data, durable.Options{Mode: 0o600}); err != nil {
		return diskError("cannot keep a blob", err)
	}
	return nil
}

// remove removes a blob, whole and partial.
func (b blobs) remove(hex string) error {
	return errors.Join(durable.Remove(b.file(hex)), durable.Remove(b.file(hex+partialSuffix)))
}

// free returns how many bytes this process may still write there.
func (b blobs) free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(b.folder(), &s); err != nil {
		return 0, diskError("cannot ask for the disk's free space", err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// reasonOfDisk finds the reason for an error of the file system.
func reasonOfDisk(err error) v1.Reason {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return v1.ReasonNoSpace
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return v1.ReasonNotWritable
	default:
		return v1.ReasonInternal
	}
}

func diskError(what string, err error) *host.Error {
	reason := reasonOfDisk(err)
	advice := ""
	switch reason {
	case v1.ReasonNoSpace:
		advice = "; make room on that disk, the download goes on where it stopped"
	case v1.ReasonNotWritable:
		advice = "; the agent needs that folder writable"
	}
	return &host.Error{Component: component, Reason: reason, Retry: true, Err: fmt.Errorf("%s: %w%s", what, err, advice)}
}
