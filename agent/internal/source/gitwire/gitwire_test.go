package gitwire

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// script answers each request with the next text.
type script struct {
	answers []string
	asked   []string
}

func (s *script) Advertise(ctx context.Context) (io.ReadCloser, error) { return s.Post(ctx, nil) }

func (s *script) Post(_ context.Context, body []byte) (io.ReadCloser, error) {
	if len(s.answers) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	answer := s.answers[0]
	s.answers, s.asked = s.answers[1:], append(s.asked, string(body))
	return io.NopCloser(strings.NewReader(answer)), nil
}

const (
	someID  = "1111111111111111111111111111111111111111"
	otherID = "2222222222222222222222222222222222222222"
	version = "000eversion 2\n000cls-refs\n0019fetch=shallow filter\n0000"
)

func TestTipInVersion2(t *testing.T) {
	s := &script{answers: []string{version,
		packet(otherID+" refs/heads/signed-2\n") + packet(someID+" refs/heads/signed\n") + "0000"}}
	c := New(s, nil, "test")
	tip, err := c.Tip(t.Context(), "refs/heads/signed")
	if err != nil || tip.String() != someID {
		t.Fatalf("tip %s, %v", tip, err)
	}
	if *c.Server() != (Server{Version: 2, Filter: true}) {
		t.Errorf("server %+v", *c.Server())
	}
	if !strings.Contains(s.asked[1], "ref-prefix refs/heads/signed\n") || !strings.HasSuffix(s.asked[1], "0000") {
		t.Errorf("asked %q", s.asked[1])
	}
}

func TestTipInVersion0(t *testing.T) {
	head := otherID + " HEAD\x00side-band-64k shallow agent=x"
	refs := func(text string) string { return "001e# service=git-upload-pack\n0000" + text + "0000" }
	for name, tc := range map[string]struct{ answer, tip string }{
		"found":   {refs(packet(head) + packet(someID+" refs/heads/signed\n") + packet(otherID+" refs/heads/x\n")), someID},
		"first":   {refs(packet(someID + " refs/heads/signed\x00side-band-64k")), someID},
		"missing": {refs(packet(head) + packet(someID+" refs/heads/signed-2\n")), ""},
		"empty":   {refs(packet(strings.Repeat("0", 40) + " capabilities^{}\x00side-band-64k")), ""},
		"ssh":     {packet(head) + packet(someID+" refs/heads/signed\n") + "0000", someID},
		"1":       {packet("version 1\n") + packet(head) + packet(someID+" refs/heads/signed\n") + "0000", someID},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(&script{answers: []string{tc.answer}}, nil, "test")
			tip, err := c.Tip(t.Context(), "refs/heads/signed")
			if err != nil || (tc.tip == "") != tip.IsZero() || tc.tip != "" && tip.String() != tc.tip {
				t.Errorf("tip %s, %v", tip, err)
			}
			if c.Server().Version != 0 {
				t.Errorf("server %+v", *c.Server())
			}
		})
	}
}

func TestFetchReadsBands(t *testing.T) {
	for name, tc := range map[string]struct {
		answer, pack string
		refused      bool
	}{
		"all":       {packet("shallow-info\n") + packet("shallow "+someID) + "0001" + packet("packfile\n") + packet("\x02counting\n") + packet("\x01PA") + packet("\x01CK") + "0000", "PACK", false},
		"error":     {packet("packfile\n") + packet("\x03no space\n") + "0000", "", true},
		"refusal":   {packet("ERR upload-pack: not our ref " + someID), "", true},
		"no pack":   {"0000", "", false},
		"cut":       {packet("packfile\n") + packet("\x01PACK"), "", false},
		"bad band":  {packet("packfile\n") + packet("\x07PACK") + "0000", "", false},
		"bad frame": {packet("packfile\n") + "fff", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: []string{tc.answer}}
			c := New(s, &Server{Version: 2, Filter: true}, "test")
			want, _ := gitpack.ParseID(someID)
			have, _ := gitpack.ParseID(otherID)
			body, err := c.Fetch(t.Context(), Request{Wants: []gitpack.ID{want}, Have: have, Filter: "tree:0"}, 1000)
			var pack []byte
			if err == nil {
				pack, err = io.ReadAll(body)
			}
			var said *ServerError
			switch {
			case tc.pack != "" && (err != nil || string(pack) != tc.pack):
				t.Errorf("got %q, %v", pack, err)
			case tc.refused && !errors.As(err, &said):
				t.Errorf("error %v", err)
			case tc.pack == "" && !tc.refused && !errors.Is(err, ErrProtocol):
				t.Errorf("error %v", err)
			}
			for _, line := range []string{"want " + someID, "have " + otherID, "shallow " + otherID, "thin-pack", "filter tree:0", "done"} {
				if !strings.Contains(s.asked[0], line+"\n") {
					t.Errorf("%q is missing in %q", line, s.asked[0])
				}
			}
		})
	}
}

func TestServerWordsAreMadeHarmless(t *testing.T) {
	err := serverError([]byte("\x1b[31mred\r\nline\xff" + strings.Repeat("x", 1000)))
	if text := err.Error(); !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\r\n") || len(text) > 400 {
		t.Errorf("%q", text)
	}
}

// packet frames a text.
func packet(text string) string {
	const hex = "0123456789abcdef"
	n := len(text) + 4
	return string([]byte{hex[n>>12&15], hex[n>>8&15], hex[n>>4&15], hex[n&15]}) + text
}

func FuzzClient(f *testing.F) {
	f.Add(version, packet("packfile\n")+packet("\x01PACK")+"0000")
	f.Add(packet(someID+" refs/heads/signed\x00side-band-64k shallow")+"0000", packet("NAK\n")+packet("\x01PACK")+"0000")
	f.Fuzz(func(t *testing.T, first, second string) {
		c := New(&script{answers: []string{first, second, second}}, nil, "test")
		tip, err := c.Tip(t.Context(), "refs/heads/signed")
		if err != nil {
			return
		}
		body, err := c.Fetch(t.Context(), Request{Wants: []gitpack.ID{tip}, Depth1: true}, 1<<16)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, body)
		_ = body.Close()
	})
}
