package publish

import (
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// Deltas make the pack of a usual change small. A whole fleet is sent without:
// looking for them takes longer than sending.
const (
	deltaWindow = 10
	deltaMost   = 2000
)

// Push moves a remote's branch from the commit old ("" for none) to another
// one, of which all that old doesn't have is here. It fails with a
// *ConflictError when the branch is elsewhere, and then changes nothing.
func (r *Repository) Push(ctx context.Context, remote, branch, commit, old string) error {
	e, err := r.endpoint(remote)
	if err != nil {
		return err
	}
	p := &push{repository: r, endpoint: e, branch: branch}
	if p.commit, err = parseHash(commit); err != nil {
		return err
	}
	if old != "" {
		if p.old, err = parseHash(old); err != nil {
			return err
		}
	}
	if err := p.run(ctx); err != nil {
		return err
	}
	if _, err := r.git.Remote(remote); err == nil {
		tracking := plumbing.NewRemoteReferenceName(remote, branch)
		// The push is done; where the branch is will be seen at the next fetch too.
		_ = r.git.Storer.SetReference(plumbing.NewHashReference(tracking, p.commit))
	}
	return nil
}

type push struct {
	repository  *Repository
	endpoint    *target
	branch      string
	commit, old plumbing.Hash
}

func (p *push) ref() plumbing.ReferenceName { return plumbing.NewBranchReferenceName(p.branch) }

func (p *push) run(ctx context.Context) error {
	t, auth, err := p.repository.connect(ctx, p.endpoint)
	if err != nil {
		return err
	}
	session, err := t.NewReceivePackSession(p.endpoint.Endpoint, auth)
	if err != nil {
		return explain(p.endpoint, "reach", err)
	}
	defer func() { _ = session.Close() }()
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil && !errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return explain(p.endpoint, "reach", err)
	}
	if refs == nil {
		refs = packp.NewAdvRefs()
	}
	if err := p.conflict(refs.References[p.ref().String()]); err != nil {
		return err
	}
	if p.commit == p.old {
		return nil
	}
	objects, err := p.repository.newObjects(p.commit, p.old, refs.References)
	if err != nil {
		return fmt.Errorf("cannot collect what to push: %w", err)
	}
	report, hook, err := p.send(ctx, session, refs, objects)
	if err == nil && report != nil {
		err = report.Error()
	}
	if err != nil {
		return p.why(ctx, hook, err)
	}
	return nil
}

func (p *push) send(ctx context.Context, session transport.ReceivePackSession, refs *packp.AdvRefs, objects []plumbing.Hash) (*packp.ReportStatus, string, error) {
	request := packp.NewReferenceUpdateRequestFromCapabilities(refs.Capabilities)
	var words lastWords
	request.Progress = &words
	if refs.Capabilities.Supports(capability.Sideband64k) {
		if err := request.Capabilities.Set(capability.Sideband64k); err != nil {
			return nil, "", err
		}
	}
	request.Commands = []*packp.Command{{Name: p.ref(), Old: p.old, New: p.commit}}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(p.repository.pack(writer, objects)) }()
	request.Packfile = reader
	report, err := session.ReceivePack(ctx, request)
	// Unblocks the encoder where the session ended early.
	_ = reader.Close()
	return report, words.String(), err
}

// pack writes objects as a pack.
func (r *Repository) pack(out io.Writer, objects []plumbing.Hash) error {
	if len(objects) <= deltaMost {
		_, err := packfile.NewEncoder(out, r.storage, false).Encode(objects, deltaWindow)
		return err
	}
	w, err := gitpack.NewWriter(out, len(objects), zlib.BestSpeed)
	if err != nil {
		return err
	}
	for _, h := range objects {
		o, err := r.storage.EncodedObject(plumbing.AnyObject, h)
		if err != nil {
			return fmt.Errorf("object %s: %w", h, err)
		}
		data, err := content(o)
		if err != nil {
			return fmt.Errorf("object %s: %w", h, err)
		}
		if err := w.Add(gitpack.Object{Type: gitpack.Type(o.Type()), Data: data}, gitpack.ID(h)); err != nil {
			return err
		}
	}
	_, err = w.Close()
	return err
}

// why finds out whether a failed push lost a race.
func (p *push) why(ctx context.Context, hook string, err error) error {
	if now, _, lookErr := p.repository.remoteTip(ctx, p.endpoint, p.branch); lookErr == nil {
		if now == p.commit {
			return nil // the answer was lost, the push was not
		}
		if conflict := p.conflict(now); conflict != nil {
			return conflict
		}
	}
	if hook != "" {
		err = fmt.Errorf("%w: %s", err, hook)
	}
	return explain(p.endpoint, "push to", err)
}

func (p *push) conflict(now plumbing.Hash) error {
	if now == p.old {
		return nil
	}
	return &ConflictError{Branch: p.branch, Expected: orEmpty(p.old), Found: orEmpty(now)}
}

func orEmpty(h plumbing.Hash) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

// lastWords keeps the start of what a server says beside its answer.
type lastWords struct{ strings.Builder }

func (w *lastWords) Write(p []byte) (int, error) {
	const enough = 2 << 10
	w.Builder.Write(p[:min(len(p), enough-w.Len())])
	return len(p), nil
}

// String returns it as one line.
func (w *lastWords) String() string { return strings.Join(strings.Fields(w.Builder.String()), " ") }
