package fetch

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/digest"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPlainHTTPNeedsLeave(t *testing.T) {
	config := Config{Registries: []Registry{{Host: "plain.example.com:5000", PlainHTTP: true}, {Host: "tls.example.com"}}}
	g := &guarded{
		inner: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{Body: io.NopCloser(strings.NewReader(""))}, nil
		}),
		plain: func(hostport string) bool { return plainAllowed(config, hostport) },
	}
	for address, allowed := range map[string]bool{
		"https://tls.example.com/v2/":         true,
		"https://anything.example.com/":       true,
		"http://plain.example.com:5000/v2/":   true,
		"http://plain.example.com/v2/":        false,
		"http://tls.example.com/v2/":          false,
		"http://10.1.2.3:5000/v2/":            false,
		"http://localhost:5000/v2/":           true,
		"http://127.0.0.1/v2/":                true,
		"http://[::1]:5000/v2/":               true,
		"http://127.0.0.1.example.com/token":  false,
		"http://localhost.example.com/token":  false,
		"http://[::ffff:127.0.0.1]:5000/v2/":  true,
		"ftp://plain.example.com:5001/token/": false,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.RoundTrip(&http.Request{URL: u, Header: http.Header{}})
		if got := !errors.Is(err, errPlainHTTP); got != allowed {
			t.Errorf("%s: allowed %v", address, got)
		}
	}
}

func TestPrivateAddresses(t *testing.T) {
	for _, private := range []string{"10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "::1", "::", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "localhost", "x.localhost"} {
		if !isPrivate(private) {
			t.Errorf("%s counts as public", private)
		}
	}
	for _, public := range []string{"8.8.8.8", "storage.example.com", "2001:4860:4860::8888", "10.example.com"} {
		if isPrivate(public) {
			t.Errorf("%s counts as private", public)
		}
	}
}

func TestParseRefusesWhatCanBeReadTwoWays(t *testing.T) {
	const (
		head = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.`
		desc = `{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}`
	)
	for name, text := range map[string]string{
		"manifest that is an index":    head + `manifest.v1+json","config":` + desc + `,"manifests":[]}`,
		"index that is a manifest":     head + `index.v1+json","manifests":[],"config":` + desc + `}`,
		"index with layers":            head + `index.v1+json","manifests":[],"layers":[]}`,
		"manifest without config":      head + `manifest.v1+json","layers":[` + desc + `]}`,
		"docker manifest":              `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":` + desc + `}`,
		"no media type":                `{"schemaVersion":2,"config":` + desc + `}`,
		"schema 1":                     `{"schemaVersion":1,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + desc + `}`,
		"sha512":                       head + `manifest.v1+json","config":{"digest":"sha512:` + strings.Repeat("0", 128) + `","size":1}}`,
		"negative size":                head + `manifest.v1+json","config":` + strings.Replace(desc, `"size":0`, `"size":-1`, 1) + `}`,
		"digest that is a path":        head + `manifest.v1+json","config":{"digest":"sha256:../x","size":1}}`,
		"layer without digest":         head + `manifest.v1+json","config":` + desc + `,"layers":[{"size":1}]}`,
		"two documents":                head + `index.v1+json","manifests":[]}{}`,
		"upper-case digest of a layer": head + `manifest.v1+json","config":` + strings.Replace(desc, "e3b0", "E3B0", 1) + `}`,
	} {
		if _, err := parse([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	d := digest.Of(nil)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"` + ArtifactType +
		`","config":{"mediaType":"x","digest":"` + d + `","size":0},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + d + `","size":9}]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"` + d + `","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha512:00","size":-1}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parse(data)
		if err != nil {
			return
		}
		for _, l := range doc.layers {
			if digest.Check(l.Digest.String()) != nil || l.Size < 0 {
				t.Errorf("accepted %+v", l)
			}
		}
		if doc.config == nil {
			_, _ = doc.selectPlatform(Platform{OS: "linux", Architecture: "amd64"})
			return
		}
		_ = doc.checkPackage(DefaultMaxSize)
	})
}
