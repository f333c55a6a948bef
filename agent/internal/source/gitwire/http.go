package gitwire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// maxRedirects bounds redirects within one host.
const maxRedirects = 5

// StatusError is an HTTP answer that isn't 200. Its body was not read.
type StatusError struct {
	Code int
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the server answers HTTP %d %s", e.Code, http.StatusText(e.Code))
}

// HTTP is a Transport over smart HTTP.
type HTTP struct {
	// Base is the repository's URL, without user and password. A redirect within
	// its host changes it.
	Base *url.URL
	// RoundTripper sends the requests; its limits and TLS are the caller's.
	RoundTripper http.RoundTripper
	// Authorization is the header's value, "" for none.
	Authorization string
	UserAgent     string
}

// Advertise implements Transport.
func (t *HTTP) Advertise(ctx context.Context) (io.ReadCloser, error) {
	return t.do(ctx, http.MethodGet, "/info/refs", "service=git-upload-pack", nil, "application/x-git-upload-pack-advertisement")
}

// Post implements Transport.
func (t *HTTP) Post(ctx context.Context, body []byte) (io.ReadCloser, error) {
	return t.do(ctx, http.MethodPost, "/git-upload-pack", "", body, "application/x-git-upload-pack-result")
}

func (t *HTTP) do(ctx context.Context, method, suffix, query string, body []byte, want string) (io.ReadCloser, error) {
	for range maxRedirects {
		answer, err := t.once(ctx, method, suffix, query, body)
		if err != nil {
			return nil, err
		}
		switch answer.StatusCode {
		case http.StatusOK:
			if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); kind != want {
				closeQuietly(answer.Body)
				return nil, fmt.Errorf("%w: it has the type %.80q instead of %s; is this the URL of a repository?", ErrProtocol, kind, want)
			}
			return drained{answer.Body}, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			closeQuietly(answer.Body)
			if err := t.redirect(answer.Header.Get("Location"), suffix); err != nil {
				return nil, err
			}
		default:
			closeQuietly(answer.Body)
			return nil, &StatusError{answer.StatusCode}
		}
	}
	return nil, fmt.Errorf("more than %d redirects", maxRedirects)
}

// drained reads the little that is left when it is closed, without which the
// connection can't be used again.
type drained struct{ io.ReadCloser }

func (d drained) Close() error {
	const little = 4 << 10
	_, _ = io.CopyN(io.Discard, d.ReadCloser, little)
	return d.ReadCloser.Close()
}

func (t *HTTP) once(ctx context.Context, method, suffix, query string, body []byte) (*http.Response, error) {
	target := *t.Base
	target.Path = strings.TrimSuffix(target.Path, "/") + suffix
	target.RawPath, target.RawQuery = "", query
	// A plain bytes.Reader lets net/http send it again on a new connection.
	r, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Git-Protocol", "version=2")
	r.Header.Set("User-Agent", t.UserAgent)
	if t.Authorization != "" {
		r.Header.Set("Authorization", t.Authorization)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		// Fetching changes nothing, so net/http may repeat it when a kept connection
		// turns out to be closed. The empty value is not sent.
		r.Header["Idempotency-Key"] = []string{}
	}
	return t.RoundTripper.RoundTrip(r)
}

// redirect follows a redirect if it stays with the host, so that credentials
// and trust do too.
func (t *HTTP) redirect(location, suffix string) error {
	to, err := t.Base.Parse(location)
	if err != nil || location == "" {
		return fmt.Errorf("%w: a redirect to nowhere", ErrProtocol)
	}
	path, ok := strings.CutSuffix(to.Path, suffix)
	to.User, to.Path, to.RawPath, to.RawQuery, to.Fragment = nil, path, "", "", ""
	if !ok || !sameHost(t.Base, to) {
		return fmt.Errorf("the server redirects to %.200q, which is not followed: if that is right, use it as the URL", to.String())
	}
	t.Base = to
	return nil
}

// sameHost accepts the same place, and http to https of one name.
func sameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	if from.Scheme == to.Scheme {
		return from.Port() == to.Port()
	}
	return from.Scheme == "http" && to.Scheme == "https" && from.Port() == "" && to.Port() == ""
}
