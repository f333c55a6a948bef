package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// flushEvery is after how many bytes the kernel is told to begin writing to
// the disk, so that the final fsync finds little left to do.
const flushEvery = 8 << 20

// partial is a layer that is being downloaded: its file, and the hash of the
// size bytes that are in it. It is locked against other processes.
type partial struct {
	blobs blobs
	desc  oci.Descriptor
	file  *os.File
	size  int64
	hash  *digest.Hasher
	// spliced is true when the bytes came by more than one request; wrong counts
	// how often the whole had another digest.
	spliced bool
	wrong   int
}

// partialSize returns how much of a layer is there already.
func (b blobs) partialSize(d oci.Descriptor) int64 {
	info, err := os.Stat(b.partial(d.Digest.String()))
	if err != nil || info.Size() > d.Size {
		return 0
	}
	return info.Size()
}

// openPartial opens or makes the file and waits for its lock: an orphan of
// a killed agent may still be at work.
func openPartial(ctx context.Context, b blobs, d oci.Descriptor) (*partial, error) {
	f, err := os.OpenFile(b.partial(d.Digest.String()), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, diskError("cannot download", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &partial{blobs: b, desc: d, file: f, hash: digest.NewHasher()}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(diskError("cannot lock a download", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *partial) close() {
	p.hash.Close()
	_ = p.file.Close() // what counts was fsynced
}

// rehash hashes what an earlier download left, and reserves the disk's space
// for the rest.
func (p *partial) rehash() error {
	info, err := p.file.Stat()
	if err != nil {
		return diskError("cannot resume a download", err)
	}
	if info.Size() > p.desc.Size {
		return p.reset()
	}
	p.spliced = info.Size() > 0
	for p.size < info.Size() {
		buffer := p.hash.Buffer()
		n, err := p.file.ReadAt(buffer[:min(int64(len(buffer)), info.Size()-p.size)], p.size)
		p.hash.Put(buffer[:n])
		p.size += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return diskError("cannot resume a download", err)
		}
	}
	// Not every file system can reserve; then the write says that the disk is full.
	err = unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, max(p.desc.Size, 1))
	if err != nil && reasonOfDisk(err) == v1.ReasonNoSpace {
		return diskError(fmt.Sprintf("cannot reserve %d bytes for a layer", p.desc.Size), err)
	}
	return nil
}

// reset begins from nothing.
func (p *partial) reset() error {
	p.size, p.spliced = 0, false
	p.hash.Sum()
	if err := p.file.Truncate(0); err != nil {
		return diskError("cannot begin a download anew", err)
	}
	return nil
}

// attempt fetches what is missing of p, in one request, and checks the digest.
func (d *downloader) attempt(p *partial) error {
	if p.size < p.desc.Size {
		if err := d.receive(p); err != nil {
			return err
		}
	}
	got, want, spliced := p.hash.Sum(), p.desc.Digest.String(), p.spliced
	if got == want {
		return nil
	}
	d.done -= p.size
	if err := p.reset(); err != nil {
		return err
	}
	p.wrong++
	if !spliced || p.wrong > 1 {
		return mismatch(d.Repository, want, got)
	}
	// What we resumed may have been damaged on our own disk: once more, from nothing.
	return fmt.Errorf("the layer's bytes have digest %s", got)
}

// receive makes one request and appends its body.
func (d *downloader) receive(p *partial) error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.config.StallTimeout, func() {
		cancel(fmt.Errorf("nothing arrived for %s", d.config.StallTimeout))
	})
	defer stall.Stop()
	p.spliced = p.size > 0
	resp, err := d.client.get(ctx, "blobs", p.desc.Digest.String(), "", p.size, p.desc.Size+controlLimit)
	if err != nil {
		return cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := d.position(p, resp); err != nil {
		return err
	}
	body := func(b []byte) (int, error) {
		n, err := resp.Body.Read(b)
		stall.Reset(d.config.StallTimeout)
		return n, err
	}
	return cause(ctx, d.append(p, body))
}

// cause prefers the reason for which ctx was cancelled over "context canceled".
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// position looks where the answer begins. A registry without ranges answers
// with all of it, which is right too.
func (d *downloader) position(p *partial, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		if p.size == 0 {
			return nil
		}
	case http.StatusPartialContent:
		if strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size)) {
			return nil
		}
		d.done -= p.size
		return errors.Join(fmt.Errorf("asked from byte %d on, the registry answers with %q", p.size, resp.Header.Get("Content-Range")), p.reset())
	case http.StatusRequestedRangeNotSatisfiable:
		d.done -= p.size
		return errors.Join(fmt.Errorf("the registry has nothing from byte %d on", p.size), p.reset())
	default:
		return checkStatus(resp, http.StatusOK, http.StatusPartialContent)
	}
	d.done -= p.size
	return p.reset()
}

// append writes the body behind what is there, up to the layer's size.
func (d *downloader) append(p *partial, read func([]byte) (int, error)) error {
	flushed := p.size
	for {
		buffer := p.hash.Buffer()
		n, readErr := read(buffer)
		if int64(n) > p.desc.Size-p.size {
			p.hash.Put(buffer[:0])
			return mismatch(d.Repository, p.desc.Digest.String(), fmt.Sprintf("more than its %d bytes", p.desc.Size))
		}
		_, err := p.file.WriteAt(buffer[:n], p.size)
		if err != nil {
			p.hash.Put(buffer[:0])
			return diskError("cannot keep the download", errors.Join(err, p.file.Truncate(p.size)))
		}
		p.hash.Put(buffer[:n])
		p.size, d.done, d.arrived = p.size+int64(n), d.done+int64(n), d.arrived+int64(n)
		d.report("")
		if p.size-flushed >= flushEvery {
			// Only a hint: the fsync in commit is what counts.
			_ = unix.SyncFileRange(int(p.file.Fd()), flushed, p.size-flushed, unix.SYNC_FILE_RANGE_WRITE)
			flushed = p.size
		}
		switch {
		case p.size == p.desc.Size:
			return nil
		case errors.Is(readErr, io.EOF):
			return fmt.Errorf("the layer ended after %d of %d bytes: %w", p.size, p.desc.Size, io.ErrUnexpectedEOF)
		case readErr != nil:
			return readErr
		}
	}
}

// commit gives a complete, verified file its final name, durably.
func (p *partial) commit() error {
	if err := p.file.Sync(); err != nil {
		return diskError("cannot keep the download", err)
	}
	path := p.blobs.path(p.desc.Digest.String())
	if err := os.Rename(p.file.Name(), path); err != nil {
		return diskError("cannot keep the download", err)
	}
	if err := durable.SyncDir(p.blobs.folder()); err != nil {
		return diskError("cannot keep the download", err)
	}
	return nil
}
