package source

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/source/gitwire"
	"github.com/gpuaas/node-agent/internal/gitpack"
)

const (
	dialTimeout  = 15 * time.Second
	idleTimeout  = 90 * time.Second
	maxHeadBytes = 64 << 10
)

// newTransport returns what HTTP goes through. Answers are never compressed, so
// no small answer can grow; packs are compressed in themselves.
func newTransport(ca []byte) (*http.Transport, error) {
	pool, err := certPool(ca)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConns:           1,
		MaxConnsPerHost:        1,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeadBytes,
		DisableCompression:     true,
	}, nil
}

// httpTip asks for the branch's commit: in one request, once it is known that
// the server speaks version 2.
func (s *Source) httpTip(ctx context.Context) (gitpack.ID, error) {
	if err := s.refreshTransport(); err != nil {
		return gitpack.ID{}, err
	}
	authorization, err := s.authorization()
	if err != nil {
		return gitpack.ID{}, err
	}
	transport := &gitwire.HTTP{
		Base: s.remote.base, RoundTripper: s.transport, Authorization: authorization, UserAgent: agentName(s.config.Version),
	}
	client := gitwire.New(transport, s.server, agentName(s.config.Version))
	tip, err := client.Tip(ctx, refName(s.config.Branch))
	if err != nil {
		s.server = nil
		return tip, err
	}
	s.server, s.remote.base = client.Server(), transport.Base
	return tip, nil
}

// refreshTransport makes the transport anew when the CA file changed.
func (s *Source) refreshTransport() error {
	mark, err := markOf(s.config.CAFile)
	if err != nil {
		return err
	}
	if s.transport != nil && mark == s.caSeen {
		return nil
	}
	ca, err := s.ca()
	if err != nil {
		return err
	}
	transport, err := newTransport(ca)
	if err != nil {
		return err
	}
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	s.transport, s.caSeen = transport, mark
	return nil
}

func (s *Source) ca() ([]byte, error) {
	if s.config.CAFile == "" {
		return nil, nil
	}
	return readFile(s.config.CAFile, maxBundle)
}

func refName(branch string) string { return "refs/heads/" + branch }

func agentName(version string) string {
	if version == "" {
		return "gpuaas-node-agent"
	}
	return "gpuaas-node-agent/" + version
}
