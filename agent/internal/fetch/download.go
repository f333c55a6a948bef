package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"time"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const (
	maxBackoff = 30 * time.Second
	// dialTimeout bounds asking the registry and logging in.
	dialTimeout = 60 * time.Second
	// worthwhile is how many bytes an attempt must bring to count as progress.
	worthwhile = 1 << 20
	// progressEvery is how often a running download is heard of.
	progressEvery = 250 * time.Millisecond
)

// request is what the parent asks of the child.
type request struct {
	Config     Config   `json:"config"`
	Name       string   `json:"name"`
	Repository string   `json:"repository"`
	Digest     string   `json:"digest"`
	Platform   Platform `json:"platform"`
}

// downloaded is the child's answer. What was fetched is in the blob folder.
type downloaded struct {
	Bytes int64 `json:"bytes"`
}

// RunChild is the hidden command: it downloads what the request on stdin
// asks for and writes the answer to stdout, progress as JSON lines to
// stderr. It is for Fetch and nobody else.
func RunChild(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	// A limit on file sizes shall be an error of the write, not the end of the process.
	signal.Ignore(unix.SIGXFSZ)
	return child.Serve(ctx, stdin, stdout, func(ctx context.Context, r request) (downloaded, error) {
		d := &downloader{ctx: ctx, request: r, config: r.Config.withDefaults(), blobs: blobs{r.Config.BlobDir}, progress: stderr}
		_, err := resolve(r.Digest, r.Platform, d.config.MaxSize, d)
		return downloaded{Bytes: d.arrived}, err
	})
}

// downloader is the reader that fetches what is missing.
type downloader struct {
	ctx context.Context
	request
	config   Config
	blobs    blobs
	client   *client
	progress io.Writer

	done, total int64 // of all layers, for progress
	arrived     int64 // over the network
	reported    time.Time
}

// read implements reader: a manifest, index or config.
func (d *downloader) read(k kind, dgst string) ([]byte, error) {
	data, err := d.blobs.read(k, dgst)
	var gone *missingError
	if !errors.As(err, &gone) {
		return data, err
	}
	accept, what := "", "config "+dgst
	if k == manifestKind {
		accept, what = string(types.OCIManifestSchema1)+","+string(types.OCIImageIndex), "manifest "+dgst
	}
	err = d.retry(what, func() (bool, error) {
		data, err = d.small(k, dgst, accept)
		return false, err
	})
	if err != nil {
		return nil, err
	}
	return data, d.blobs.write(dgst, data)
}

// small gets a small blob into memory and verifies it.
func (d *downloader) small(k kind, dgst, accept string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	resp, err := d.client.get(ctx, k.name, dgst, accept, 0, k.limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := checkStatus(resp, 200); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if got := digest.Of(data); got != dgst {
		return nil, mismatch(d.Repository, dgst, got)
	}
	return data, nil
}

func mismatch(repository, want, got string) *host.Error {
	return &host.Error{Component: component, Reason: v1.ReasonDigestMismatch, Retry: true, Err: fmt.Errorf(
		"%s serves other bytes than those that were signed: want %s, got %s; nothing of it was used; find out who changed the registry, and push the package again",
		repository, want, got)}
}

// prepare implements reader: it counts what is to come, and refuses to begin
// what the disk can't hold.
func (d *downloader) prepare(layers []oci.Descriptor) error {
	var missing int64
	seen := map[string]bool{}
	for _, l := range layers {
		if seen[l.Digest.Hex] {
			continue
		}
		seen[l.Digest.Hex] = true
		if _, err := d.blobs.layer(l); err == nil {
			continue
		}
		missing += l.Size - d.blobs.partialSize(l)
		d.total += l.Size
		d.done += d.blobs.partialSize(l)
	}
	if missing == 0 {
		return nil
	}
	free, err := d.blobs.free()
	if err != nil {
		return err
	}
	if need := missing + d.config.MinFree; free < need {
		return &host.Error{Component: component, Reason: v1.ReasonNoSpace, Retry: true, Err: fmt.Errorf(
			"cannot begin the download: %s has %d bytes free, and %d are needed (%d to fetch, %d to stay free); make room there",
			d.blobs.dir, free, need, missing, d.config.MinFree)}
	}
	return nil
}

// layer implements reader.
func (d *downloader) layer(desc oci.Descriptor) (string, error) {
	path, err := d.blobs.layer(desc)
	var gone *missingError
	if !errors.As(err, &gone) {
		return path, err
	}
	p, err := openPartial(d.ctx, d.blobs, desc)
	if err != nil {
		return "", err
	}
	defer p.close()
	// Whoever held the file before us may have completed it.
	if path, err := d.blobs.layer(desc); err == nil {
		return path, nil
	}
	if err := p.rehash(); err != nil {
		return "", err
	}
	err = d.retry("layer "+desc.Digest.String(), func() (bool, error) {
		before := p.size
		err := d.attempt(p)
		return p.size-before >= worthwhile, err
	})
	if err != nil {
		return "", err
	}
	return path, p.commit()
}

// retry connects and calls do until it succeeds, fails for good, or fails
// Attempts times in a row without progress. Its error is ready for status.
func (d *downloader) retry(what string, do func() (progress bool, err error)) error {
	pause := d.config.Backoff
	for failed := 0; ; {
		progress, err := d.connected(do)
		if err == nil {
			return nil
		}
		if failed++; progress {
			failed, pause = 1, d.config.Backoff
		}
		if d.ctx.Err() != nil || !temporary(err) || failed >= d.config.Attempts {
			return explain(d.ctx, what, d.Repository, d.config.AuthFile, err)
		}
		wait := pause
		var status *statusError
		if errors.As(err, &status) {
			wait = max(wait, min(status.after, maxBackoff))
		}
		d.report(fmt.Sprintf("%s: %v; trying again in %s", what, err, wait))
		select {
		case <-d.ctx.Done():
		case <-time.After(wait):
		}
		pause = min(2*pause, maxBackoff)
	}
}

func (d *downloader) connected(do func() (bool, error)) (bool, error) {
	if d.client == nil {
		ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
		defer cancel()
		c, err := dial(ctx, d.config, d.Repository)
		if err != nil {
			return false, err
		}
		d.client = c
	}
	return do()
}

// report writes a line of progress. With a note it does so at once.
func (d *downloader) report(note string) {
	if note == "" && time.Since(d.reported) < progressEvery {
		return
	}
	d.reported = time.Now()
	// Nobody is helped by a download that fails because its progress can't be told.
	_ = json.NewEncoder(d.progress).Encode(Progress{Package: d.Name, Done: d.done, Total: d.total, Note: note})
}
