package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// Request says what to fetch.
type Request struct {
	Wants []gitpack.ID
	// Have is a commit whose objects needn't be sent, the zero ID for none. The
	// pack may then hold deltas on them.
	Have gitpack.ID
	// Depth1 leaves out the history of wanted commits.
	Depth1 bool
	// Filter is a filter of rev-list's --filter, only for servers that have it.
	Filter string
}

// Fetch asks for objects and returns the pack that comes, to be read to its
// end and closed. limit bounds the answer in bytes. In version 0, Tip must
// have been called before, and its commit is the one thing that can be wanted.
func (c *Client) Fetch(ctx context.Context, r Request, limit int64) (io.ReadCloser, error) {
	if c.server == nil {
		return nil, errors.New("fetch before the server is known")
	}
	if c.server.Version == 0 {
		return c.fetchV0(ctx, r, limit)
	}
	var q packetWriter
	q.line("command=fetch")
	q.line("agent=%s", c.agent)
	q.delim()
	q.line("no-progress")
	q.line("ofs-delta")
	if !r.Have.IsZero() {
		q.line("thin-pack")
		q.line("shallow %s", r.Have)
	}
	if r.Depth1 {
		q.line("deepen 1")
	}
	if r.Filter != "" {
		q.line("filter %s", r.Filter)
	}
	for _, id := range r.Wants {
		q.line("want %s", id)
	}
	if !r.Have.IsZero() {
		q.line("have %s", r.Have)
	}
	q.line("done")
	q.flush()
	answer, err := c.transport.Post(ctx, q.Bytes())
	if err != nil {
		return nil, err
	}
	packets := newPacketReader(newCapped(answer, limit))
	for {
		kind, payload, err := packets.next()
		switch {
		case err != nil:
			closeQuietly(answer)
			return nil, err
		case kind == flush:
			closeQuietly(answer)
			return nil, fmt.Errorf("%w: no pack in it", ErrProtocol)
		case kind == data && strings.TrimSpace(string(payload)) == "packfile":
			return c.band(packets, answer), nil
		}
		// Sections before it, such as shallow-info, say nothing that we don't know.
	}
}

func (c *Client) fetchV0(ctx context.Context, r Request, limit int64) (io.ReadCloser, error) {
	for _, need := range []string{"side-band-64k", "shallow"} {
		if !slices.Contains(c.capabilities, need) {
			return nil, fmt.Errorf("the server is too old: it has no %s", need)
		}
	}
	if c.tip.IsZero() || !slices.Equal(r.Wants, []gitpack.ID{c.tip}) {
		return nil, errors.New("protocol version 0 can fetch the branch only")
	}
	var q packetWriter
	for i, id := range r.Wants {
		if i == 0 {
			q.line("want %s side-band-64k ofs-delta thin-pack no-progress agent=%s", id, c.agent)
		} else {
			q.line("want %s", id)
		}
	}
	if !r.Have.IsZero() {
		q.line("shallow %s", r.Have)
	}
	if r.Depth1 {
		q.line("deepen 1")
	}
	q.flush()
	if !r.Have.IsZero() {
		q.line("have %s", r.Have)
	}
	q.line("done")
	answer, err := c.transport.Post(ctx, q.Bytes())
	if err != nil {
		return nil, err
	}
	band := c.band(newPacketReader(newCapped(answer, limit)), answer)
	if err := band.skipNegotiation(); err != nil {
		closeQuietly(answer)
		return nil, err
	}
	return band, nil
}

// sideband is the pack within packets: band 1 is data, 2 progress, 3 an error.
type sideband struct {
	packets *packetReader
	closer  io.Closer
	rest    []byte
	done    bool
	// drain is true where all requests share one stream.
	drain bool
}

func (c *Client) band(packets *packetReader, closer io.Closer) *sideband {
	_, stream := c.transport.(*SSH)
	return &sideband{packets: packets, closer: closer, drain: stream}
}

// skipNegotiation reads what version 0 says before the pack: shallow lines, a
// flush, ACK or NAK. The first packet of a band ends it.
func (s *sideband) skipNegotiation() error {
	for {
		kind, payload, err := s.packets.next()
		if err != nil {
			return err
		}
		if kind == data && len(payload) > 0 && payload[0] <= 3 {
			return s.take(payload)
		}
	}
}

func (s *sideband) take(payload []byte) error {
	switch payload[0] {
	case 1:
		s.rest = payload[1:]
	case 2:
	case 3:
		return serverError(payload[1:])
	default:
		return fmt.Errorf("%w: band %d", ErrProtocol, payload[0])
	}
	return nil
}

func (s *sideband) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.done {
			return 0, io.EOF
		}
		kind, payload, err := s.packets.next()
		switch {
		case err != nil:
			return 0, err
		case kind == flush || kind == end:
			s.done = true
		case kind != data || len(payload) == 0:
			return 0, fmt.Errorf("%w: an unexpected packet in a pack", ErrProtocol)
		default:
			if err := s.take(payload); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends the answer. What is left of it is read where the connection can't
// be used again otherwise.
func (s *sideband) Close() error {
	for s.drain && !s.done {
		if _, err := io.Copy(io.Discard, s); err != nil {
			return errors.Join(err, s.closer.Close())
		}
	}
	return s.closer.Close()
}
