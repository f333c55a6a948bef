package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// controlLimit caps every answer that is not a layer: pings, tokens, errors, manifests.
	controlLimit = MaxManifest
	maxCAFile    = 4 << 20
	userAgent    = "gpuaas-node-agent"
)

// repositoryPath is the rule for names of the distribution specification.
var repositoryPath = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)

// client speaks to one repository of one registry.
type client struct {
	repo name.Repository
	http *http.Client
}

// dial makes a client: it asks the registry how it wants to be spoken to and
// logs in. Errors are those of the network or of the registry.
func dial(ctx context.Context, c Config, repository string) (*client, error) {
	repo, reg, err := parseRepository(c, repository)
	if err != nil {
		return nil, err
	}
	auth, err := credentials(c.AuthFile, repo)
	if err != nil {
		return nil, err
	}
	base, err := newTransport(c, reg)
	if err != nil {
		return nil, err
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, base, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &client{repo: repo, http: &http.Client{Transport: rt, CheckRedirect: redirectRule(c, repo.RegistryStr())}}, nil
}

// parseRepository returns the repository and the settings of its registry.
func parseRepository(c Config, repository string) (name.Repository, Registry, error) {
	hostname, path, _ := strings.Cut(repository, "/")
	if !repositoryPath.MatchString(path) || !strings.ContainsAny(hostname, ".:") && hostname != "localhost" {
		return name.Repository{}, Registry{}, invalid(fmt.Errorf(
			"%.300q is no repository; want host/path or host:port/path, in lower case, without tag or digest", repository))
	}
	reg := Registry{Host: hostname}
	for _, r := range c.Registries {
		if r.Host == hostname {
			reg = r
		}
	}
	options := []name.Option{name.StrictValidation}
	if reg.PlainHTTP {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(repository, options...)
	if err != nil {
		return repo, reg, invalid(fmt.Errorf("%q is no repository: %w", repository, err))
	}
	return repo, reg, nil
}

func newTransport(c Config, reg Registry) (http.RoundTripper, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if reg.CAFile != "" {
		pool, err := readCAs(reg.CAFile)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = pool
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &guarded{
		inner: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  c.StallTimeout,
			MaxResponseHeaderBytes: 256 << 10,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true, // a layer must arrive as it is stored
			ForceAttemptHTTP2:      true,
			ReadBufferSize:         64 << 10,
		},
		plain: func(hostport string) bool { return plainAllowed(c, hostport) },
	}, nil
}

func plainAllowed(c Config, hostport string) bool {
	for _, r := range c.Registries {
		if r.PlainHTTP && r.Host == hostport {
			return true
		}
	}
	return isLoopback(hostOnly(hostport))
}

func readCAs(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the registry's CA file: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the registry's CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("cannot use the registry's CA file %s: it holds no PEM certificate", path)
	}
	return pool, nil
}

// guarded holds every request, those for tokens and after redirects too, to
// the rules for plain HTTP, and every answer to a size.
type guarded struct {
	inner http.RoundTripper
	plain func(hostport string) bool
}

// errPlainHTTP is wrapped by the refusal of http to a host that is not allowed it.
var errPlainHTTP = errors.New("plain HTTP is not allowed to this host")

// RoundTrip implements http.RoundTripper.
func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plain(req.URL.Host) {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, errPlainHTTP)
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := g.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	limit := int64(controlLimit)
	if l, ok := req.Context().Value(limitKey{}).(int64); ok {
		limit = l
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: limit}
	return resp, nil
}

// limitKey is the context key under which a request says how much it expects.
type limitKey struct{}

var errTooLarge = errors.New("the answer is larger than it may be")

// limitedBody fails once more than left bytes were read.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// get requests one manifest or blob, from byte offset on if that isn't 0.
// limit caps the body. The caller closes the body, also of an answer that is
// an error.
func (c *client) get(ctx context.Context, kind, dgst, accept string, offset, limit int64) (*http.Response, error) {
	u := url.URL{
		Scheme: c.repo.Scheme(),
		Host:   c.repo.RegistryStr(),
		Path:   "/v2/" + c.repo.RepositoryStr() + "/" + kind + "/" + dgst,
	}
	ctx = context.WithValue(ctx, limitKey{}, limit)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	return c.http.Do(req)
}

// redirectRule lets a registry send us elsewhere, as those do that keep blobs
// in object storage, but not to addresses of this node or its network that
// it names outright. A name may resolve to anything; what comes back from
// there counts only if it has the signed digest.
func redirectRule(c Config, registry string) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than 5 redirects")
		}
		target := hostOnly(req.URL.Host)
		if c.AllowPrivateRedirects || target == hostOnly(registry) || !isPrivate(target) {
			return nil
		}
		return fmt.Errorf("%s redirects to the private address %s, which is refused; set allowPrivateRedirects if that is meant to be", registry, target)
	}
}

func hostOnly(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

func isLoopback(hostname string) bool {
	addr, err := netip.ParseAddr(hostname)
	return hostname == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func isPrivate(hostname string) bool {
	if isLoopback(hostname) || strings.HasSuffix(hostname, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(hostname)
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() || addr.IsMulticast() || addr.IsUnspecified()
}
