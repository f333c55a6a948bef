package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxBody is how much of an answer is read. What it says doesn't count.
const maxBody = 64 << 10

// Network asks services over the network, as Checks.
type Network struct {
	client *http.Client
}

// NewNetwork returns checks that use no proxy, keep no connection, and follow
// redirects on the same host and port only.
func NewNetwork() *Network {
	return &Network{client: &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: maxBody, TLSHandshakeTimeout: checkTimeout,
			DialContext: (&net.Dialer{Timeout: checkTimeout}).DialContext,
		},
		CheckRedirect: sameHost,
		Timeout:       checkTimeout + time.Second, // ctx bounds it before
	}}
}

func sameHost(next *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return fmt.Errorf("more than 5 redirects")
	}
	if first := via[0].URL; next.URL.Host != first.Host || next.URL.Scheme != first.Scheme {
		return fmt.Errorf("redirect to another host (%s://%s)", next.URL.Scheme, next.URL.Host)
	}
	return nil
}

// HTTP implements Checks.
func (n *Network) HTTP(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", address, err)
	}
	req.Header.Set("User-Agent", "gpuaas-node-agent")
	res, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", address, short(err))
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	switch {
	case res.StatusCode < 200 || res.StatusCode > 299:
		return fmt.Errorf("GET %s: answered %s%s", address, res.Status, excerpt(body))
	case err != nil:
		return fmt.Errorf("GET %s: the answer broke off: %w", address, short(err))
	}
	return nil
}

// TCP implements Checks.
func (n *Network) TCP(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: checkTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, short(err))
	}
	return conn.Close()
}

// short drops the method and URL that net/http repeats.
func short(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// excerpt is the first line of an answer, for people.
func excerpt(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, ""))
	if line == "" {
		return ""
	}
	if runes := []rune(line); len(runes) > 120 {
		line = string(runes[:120]) + "..."
	}
	return ": " + line
}
