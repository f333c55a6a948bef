// Package gitwire speaks the client's side of git's fetch protocol, version 2
// and where a server has nothing better version 0, over HTTP and SSH
// (gitprotocol-v2(5), gitprotocol-pack(5), gitprotocol-http(5)).
//
// It asks for single refs and for exactly the objects that it is told to want,
// and streams what comes: nothing that a server sends is held as a whole, and
// everything has a limit.
package gitwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrLimit is the cause of a refusal for size.
var ErrLimit = errors.New("over the limit")

// ErrProtocol is the cause when the other side speaks no git that we know.
var ErrProtocol = errors.New("not an answer of a git server")

// ServerError is what a server says when it refuses.
type ServerError struct{ Text string }

// Error implements error.
func (e *ServerError) Error() string { return "the server says: " + e.Text }

// packetKind tells data from the special packets.
type packetKind int

const (
	data packetKind = iota
	flush
	delim
	end
)

// maxPacket is the longest packet with its length.
const maxPacket = 65520

// packetReader reads pkt-lines.
type packetReader struct {
	r      io.Reader
	buffer []byte
}

func newPacketReader(r io.Reader) *packetReader { return &packetReader{r: r} }

// next returns the next packet; its payload is valid until the call after.
func (p *packetReader) next() (packetKind, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return data, nil, fmt.Errorf("%w: it ended early", ErrProtocol)
		}
		return data, nil, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	switch {
	case err != nil || n > maxPacket || n == 3:
		return data, nil, fmt.Errorf("%w: it begins with %q", ErrProtocol, head[:])
	case n == 0:
		return flush, nil, nil
	case n == 1:
		return delim, nil, nil
	case n == 2:
		return end, nil, nil
	}
	n -= 4
	if uint64(cap(p.buffer)) < n {
		p.buffer = make([]byte, n, max(n, 256))
	}
	payload := p.buffer[:n]
	if _, err := io.ReadFull(p.r, payload); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return data, nil, fmt.Errorf("%w: it ended early", ErrProtocol)
		}
		return data, nil, err
	}
	if text, ok := bytes.CutPrefix(payload, []byte("ERR ")); ok {
		return data, nil, serverError(text)
	}
	return data, payload, nil
}

// line returns the next packet as text without its newline; false at a flush.
func (p *packetReader) line() (string, bool, error) {
	kind, payload, err := p.next()
	if err != nil || kind == flush {
		return "", false, err
	}
	if kind != data {
		return "", false, fmt.Errorf("%w: an unexpected packet", ErrProtocol)
	}
	return strings.TrimSuffix(string(payload), "\n"), true, nil
}

// serverError keeps the start of what a server said, without control characters.
func serverError(text []byte) error {
	const enough = 300
	s := string(text[:min(len(text), enough)])
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, s)
	return &ServerError{strings.TrimSpace(s)}
}

// packetWriter builds a request.
type packetWriter struct{ bytes.Buffer }

func (p *packetWriter) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(p, "%04x%s\n", len(text)+5, text)
}

func (p *packetWriter) flush() { p.WriteString("0000") }
func (p *packetWriter) delim() { p.WriteString("0001") }

// capped fails, rather than ends, when more than left bytes come.
type capped struct {
	r    io.Reader
	left int64
	max  int64
}

func newCapped(r io.Reader, limit int64) *capped { return &capped{r: r, left: limit, max: limit} }

func (c *capped) Read(p []byte) (int, error) {
	if c.left < 0 {
		return 0, fmt.Errorf("an answer of more than %d bytes: %w", c.max, ErrLimit)
	}
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return n - 1, fmt.Errorf("an answer of more than %d bytes: %w", c.max, ErrLimit)
	}
	return n, err
}
