package pack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RemoteOptions say how to speak to registries.
type RemoteOptions struct {
	// PlainHTTP allows HTTP without TLS to any host; without it, to loopback only.
	PlainHTTP bool
	// Progress, when set, is told the bytes sent so far and their total, from
	// another goroutine.
	Progress func(done, total int64)
}

// Pushed is what Push did.
type Pushed struct {
	// Repository is the repository without tag or digest, as in a fleet repo's ref.
	Repository string `json:"ref" yaml:"ref"`
	Tag        string `json:"tag" yaml:"tag"`
	Digest     string `json:"digest" yaml:"digest"`
	Info       *Info  `json:"-" yaml:"-"`
}

// Push sends the package in the layout at dir to ref, "registry/repository" or
// "registry/repository:tag"; the tag defaults to the package's version, so that
// registries which remove what is untagged keep it. Credentials are those of
// the Docker configuration. Transient errors are tried again.
func Push(ctx context.Context, dir, ref string, opts RemoteOptions) (*Pushed, error) {
	art, err := openLayout(dir)
	if err != nil {
		return nil, err
	}
	info, err := Inspect(dir)
	if err != nil {
		return nil, err
	}
	tag, err := parseTarget(ref, info.Version, opts)
	if err != nil {
		return nil, err
	}
	ropts := opts.remoteOptions(ctx)
	finish := func() {}
	if opts.Progress != nil {
		var updates chan oci.Update
		updates, finish = relay(opts.Progress)
		ropts = append(ropts, remote.WithProgress(updates))
	}
	if art.index != nil {
		err = remote.WriteIndex(tag, art.index, ropts...)
	} else {
		err = remote.Write(tag, art.image, ropts...)
	}
	finish()
	if err != nil {
		return nil, explain(fmt.Sprintf("push %s to %s", dir, tag), err)
	}
	return &Pushed{Repository: tag.Context().Name(), Tag: tag.TagStr(), Digest: info.Digest, Info: info}, nil
}

// relay passes ggcr's progress on, and returns how to wait for the last of it.
// The library closes the channel only if it came as far as sending.
func relay(progress func(done, total int64)) (updates chan oci.Update, finish func()) {
	updates = make(chan oci.Update, 16)
	returned, finished := make(chan struct{}), make(chan struct{})
	show := func(u oci.Update) {
		if u.Error == nil {
			progress(u.Complete, u.Total)
		}
	}
	go func() {
		defer close(finished)
		for {
			select {
			case u, open := <-updates:
				if !open {
					return
				}
				show(u)
			case <-returned:
				return
			}
		}
	}()
	return updates, func() {
		close(returned)
		<-finished
	}
}

var notInTag = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

func parseTarget(ref, version string, opts RemoteOptions) (name.Tag, error) {
	if strings.Contains(ref, "@") {
		return name.Tag{}, fmt.Errorf("cannot push to %q: the digest follows from the package; name registry/repository or registry/repository:tag", ref)
	}
	if !namesRegistry(ref) {
		return name.Tag{}, fmt.Errorf("cannot push to %q: it must begin with a registry host, like registry.example.com/team/package", ref)
	}
	tag, err := name.NewTag(ref, append(opts.nameOptions(), name.WithDefaultTag(notInTag.ReplaceAllString(version, "_")))...)
	if err != nil {
		return name.Tag{}, fmt.Errorf("cannot push to %q: %w", ref, err)
	}
	return tag, nil
}

// namesRegistry tells "host.example/x" and "localhost:5000/x" from "x/y", which
// Docker's rules would send to Docker Hub.
func namesRegistry(ref string) bool {
	host, _, found := strings.Cut(ref, "/")
	return found && (strings.ContainsAny(host, ".:") || host == "localhost")
}

func (o RemoteOptions) nameOptions() []name.Option {
	if o.PlainHTTP {
		return []name.Option{name.Insecure}
	}
	return nil
}

func (o RemoteOptions) remoteOptions(ctx context.Context) []remote.Option {
	base := remote.DefaultTransport
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(httpGuard{base: base, plainHTTP: o.PlainHTTP}),
		remote.WithUserAgent("gpuaas-signer"),
	}
}

// httpGuard refuses requests without TLS to other hosts than loopback. The
// library would use plain HTTP for private addresses unasked.
type httpGuard struct {
	base      http.RoundTripper
	plainHTTP bool
}

var errPlainHTTP = errors.New("it would go over HTTP without TLS; use --plain-http if you mean it")

func (g httpGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !g.plainHTTP && !isLoopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("cannot reach %s: %w", r.URL.Host, errPlainHTTP)
	}
	return g.base.RoundTrip(r)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// explain adds what to do about the usual failures.
func explain(what string, err error) error {
	var terr *transport.Error
	if errors.As(err, &terr) {
		switch terr.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("cannot %s: the registry refused the credentials; log in so that the Docker configuration has them: %w", what, err)
		case http.StatusNotFound:
			return fmt.Errorf("cannot %s: the registry has no such thing: %w", what, err)
		}
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("cannot %s: the registry can't be reached; is it running, and is the name right? %w", what, err)
	}
	return fmt.Errorf("cannot %s: %w", what, err)
}
