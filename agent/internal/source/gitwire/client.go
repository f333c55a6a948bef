package gitwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// Transport carries requests to one repository's upload-pack.
type Transport interface {
	// Advertise begins a conversation and returns the server's first words.
	Advertise(ctx context.Context) (io.ReadCloser, error)
	// Post sends one request and returns its answer. An answer must be closed
	// before the next request.
	Post(ctx context.Context, body []byte) (io.ReadCloser, error)
}

// Server is what is known about a server after its first words. It can be kept
// and given to New in another process.
type Server struct {
	// Version is the protocol's: 2 or 0.
	Version int `json:"version"`
	// Filter is true when the server sends less than everything on demand.
	Filter bool `json:"filter,omitempty"`
}

// Limits of answers, in bytes.
const (
	maxCapabilities = 64 << 10
	maxLsRefs       = 64 << 10
	// Version 0 knows no question: it answers with all refs of the repository.
	// They are read past, not kept.
	maxAdvertisement = 64 << 20
)

// Client talks to one repository. It is not safe for concurrent use.
type Client struct {
	transport Transport
	server    *Server
	// agent is what we call ourselves.
	agent string
	// Of a version 0 advertisement:
	tip          gitpack.ID
	capabilities []string
}

// New returns a client. Where server is nil the first Tip finds it out.
func New(t Transport, server *Server, agent string) *Client {
	return &Client{transport: t, server: server, agent: agent}
}

// Server returns what is known about the server, nil before the first Tip.
func (c *Client) Server() *Server { return c.server }

// Tip returns the commit of a full ref name, and the zero ID where the ref
// doesn't exist.
func (c *Client) Tip(ctx context.Context, ref string) (gitpack.ID, error) {
	if c.server == nil || c.server.Version == 0 {
		if err := c.greet(ctx, ref); err != nil {
			return gitpack.ID{}, err
		}
	}
	if c.server.Version == 0 {
		return c.tip, nil
	}
	return c.lsRefs(ctx, ref)
}

func (c *Client) lsRefs(ctx context.Context, ref string) (gitpack.ID, error) {
	var q packetWriter
	q.line("command=ls-refs")
	q.line("agent=%s", c.agent)
	q.delim()
	q.line("ref-prefix %s", ref)
	q.flush()
	answer, err := c.transport.Post(ctx, q.Bytes())
	if err != nil {
		return gitpack.ID{}, err
	}
	defer closeQuietly(answer)
	packets := newPacketReader(newCapped(answer, maxLsRefs))
	var tip gitpack.ID
	for {
		line, more, err := packets.line()
		if err != nil || !more {
			return tip, err
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return tip, fmt.Errorf("%w: ls-refs answers %.80q", ErrProtocol, line)
		}
		// A prefix is only a hint: signed-2 comes with signed.
		if fields[1] != ref {
			continue
		}
		if tip, err = gitpack.ParseID(fields[0]); err != nil {
			return tip, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
}

// greet reads the server's first words: capabilities in version 2, all refs in
// version 0, of which ref's is kept.
func (c *Client) greet(ctx context.Context, ref string) error {
	answer, err := c.transport.Advertise(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(answer)
	packets := newPacketReader(newCapped(answer, maxAdvertisement))
	line, more, err := packets.line()
	if err != nil {
		return err
	}
	if strings.HasPrefix(line, "# service=") {
		if _, more, err = packets.line(); err != nil || more {
			return errors.Join(ErrProtocol, err)
		}
		if line, more, err = packets.line(); err != nil {
			return err
		}
	}
	if !more {
		return fmt.Errorf("%w: it says nothing", ErrProtocol)
	}
	switch line {
	case "version 2":
		return c.readCapabilities(packets)
	case "version 1":
		if line, _, err = packets.line(); err != nil {
			return err
		}
	}
	return c.readRefs(packets, line, ref)
}

func (c *Client) readCapabilities(packets *packetReader) error {
	server := &Server{Version: 2}
	lsRefs, fetch := false, false
	for read := 0; read < maxCapabilities; {
		line, more, err := packets.line()
		if err != nil {
			return err
		}
		if !more {
			if !lsRefs || !fetch {
				return fmt.Errorf("%w: it can neither list nor fetch", ErrProtocol)
			}
			c.server = server
			return nil
		}
		read += len(line)
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "ls-refs":
			lsRefs = true
		case "fetch":
			fetch = true
			server.Filter = slices.Contains(strings.Fields(value), "filter")
		case "object-format":
			if value != "sha1" {
				return fmt.Errorf("the repository names objects by %s: only sha1 is supported", value)
			}
		}
	}
	return fmt.Errorf("the server's capabilities: %w of %d bytes", ErrLimit, maxCapabilities)
}

func (c *Client) readRefs(packets *packetReader, first, ref string) error {
	c.tip = gitpack.ID{}
	line, capabilities, _ := strings.Cut(first, "\x00")
	c.capabilities = strings.Fields(capabilities)
	for {
		id, name, ok := strings.Cut(line, " ")
		switch {
		case !ok && !strings.HasPrefix(line, "shallow "):
			return fmt.Errorf("%w: it begins with %.80q", ErrProtocol, line)
		case name == ref:
			var err error
			if c.tip, err = gitpack.ParseID(id); err != nil {
				return fmt.Errorf("%w: %w", ErrProtocol, err)
			}
		}
		kind, payload, err := packets.next()
		switch {
		case err != nil:
			return err
		case kind == flush:
			c.server = &Server{Version: 0, Filter: false}
			return nil
		case kind != data:
			return ErrProtocol
		}
		line = string(bytes.TrimSuffix(payload, []byte{'\n'}))
	}
}

func closeQuietly(c io.Closer) { _ = c.Close() }
