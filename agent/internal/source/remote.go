package source

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

type kind int

const (
	local kind = iota
	overHTTP
	overSSH
)

// remote is a parsed URL.
type remote struct {
	kind kind
	// base is that of HTTP, without user and password.
	base *url.URL
	// user and password were in the URL.
	user, password   string
	host, port, path string
}

// scpLike is user@host:path, with which git means SSH.
var scpLike = regexp.MustCompile(`^(?:([A-Za-z0-9._-]+)@)?([A-Za-z0-9][A-Za-z0-9._-]*):([^/-].*|/.*)$`)

func parseRemote(text string) (remote, error) {
	if text == "" {
		return remote{}, errors.New("no source: set source.url")
	}
	if !strings.Contains(text, "://") {
		if filepath.IsAbs(text) {
			return remote{kind: local, path: filepath.Clean(text)}, nil
		}
		if m := scpLike.FindStringSubmatch(text); m != nil {
			return remote{kind: overSSH, user: m[1], host: m[2], port: "22", path: m[3]}, nil
		}
		return remote{}, errors.New("source.url is neither a URL nor an absolute path")
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's own error repeats the text, which may hold a password.
		return remote{}, errors.New("source.url can't be parsed: use https://HOST/PATH, ssh://USER@HOST/PATH, file:///PATH or an absolute path")
	}
	password, _ := u.User.Password()
	r := remote{user: u.User.Username(), password: password, host: u.Hostname(), port: u.Port(), path: u.Path}
	switch u.Scheme {
	case "http", "https":
		r.kind = overHTTP
		r.base = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	case "ssh", "git+ssh", "ssh+git":
		r.kind = overSSH
		if r.port == "" {
			r.port = "22"
		}
		// ssh://host/~user/x means the user's home, as git has it.
		if strings.HasPrefix(r.path, "/~") {
			r.path = r.path[1:]
		}
	case "file":
		r.kind, r.path = local, filepath.Clean(u.Path)
		if u.Host != "" && u.Host != "localhost" {
			return r, errors.New("source.url is a file URL with a host: use file:///PATH")
		}
		return r, nil
	default:
		return r, fmt.Errorf("source.url has the scheme %q: use https, http, ssh, file or an absolute path", u.Scheme)
	}
	if r.host == "" || r.path == "" {
		return r, errors.New("source.url lacks a host or a path")
	}
	return r, nil
}

// String returns the URL for messages: without user and password.
func (r remote) String() string {
	switch r.kind {
	case overHTTP:
		return r.base.String()
	case overSSH:
		host := r.host
		if r.port != "22" {
			host += ":" + r.port
		}
		return "ssh://" + host + "/" + strings.TrimPrefix(r.path, "/")
	}
	return r.path
}
