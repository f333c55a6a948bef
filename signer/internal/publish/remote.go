package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// Environment variables with which CI gives credentials for a remote.
const (
	// TokenFileEnv names a file with a token or password for HTTPS.
	TokenFileEnv = "GPUAAS_GIT_TOKEN_FILE"
	// UsernameEnv is the user that goes with it; most servers look at the token
	// alone.
	UsernameEnv = "GPUAAS_GIT_USERNAME"
	// SSHKeyFileEnv names a private key for SSH. Hosts are checked against
	// ~/.ssh/known_hosts, or the files that SSH_KNOWN_HOSTS names.
	SSHKeyFileEnv = "GPUAAS_GIT_SSH_KEY_FILE"
)

const maxToken = 64 << 10

// target is where a remote is. For HTTP the user and password of its URL are
// kept apart from it, so that no error can repeat them.
type target struct {
	*transport.Endpoint
	user, password string
}

// endpoint finds a remote by its name, or takes a URL or path for what it is.
func (r *Repository) endpoint(remote string) (*target, error) {
	url := remote
	configured, err := r.git.Remote(remote)
	switch {
	case err == nil && len(configured.Config().URLs) > 0:
		url = configured.Config().URLs[0]
	case err == nil || errors.Is(err, git.ErrRemoteNotFound):
		if !strings.ContainsAny(remote, "/:") {
			return nil, fmt.Errorf("there is no remote %q: add it with git remote add %s URL, or give a URL", remote, remote)
		}
	default:
		return nil, fmt.Errorf("cannot read the remote %q: %w", remote, err)
	}
	if !strings.Contains(url, ":") && !filepath.IsAbs(url) {
		url = filepath.Join(r.root(), url)
	}
	e, err := transport.NewEndpoint(url)
	if err != nil {
		// The parser repeats the URL, which may hold a password.
		return nil, fmt.Errorf("the URL of remote %q can't be parsed", name(remote))
	}
	t := &target{Endpoint: e}
	if e.Protocol == "http" || e.Protocol == "https" {
		t.user, t.password, e.User, e.Password = e.User, e.Password, "", ""
	}
	return t, nil
}

// name returns a remote's name, and nothing of one that is a URL.
func name(remote string) string {
	if strings.ContainsAny(remote, "/:") {
		return "(given as a URL)"
	}
	return remote
}

// root is what a remote's relative path starts from, as git has it.
func (r *Repository) root() string {
	if w, err := r.git.Worktree(); err == nil {
		return w.Filesystem.Root()
	}
	return r.dir
}

// display returns a remote's URL without user and password.
func display(e *target) string {
	if e.Protocol == "file" {
		return e.Path
	}
	shown := *e.Endpoint
	shown.User, shown.Password = "", ""
	return shown.String()
}

// connect returns what speaks with a remote, and as whom.
func (r *Repository) connect(ctx context.Context, e *target) (transport.Transport, transport.AuthMethod, error) {
	auth, err := r.auth(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.NewClient(e.Endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use %s: %w", display(e), err)
	}
	return c, auth, nil
}

func (r *Repository) auth(ctx context.Context, e *target) (transport.AuthMethod, error) {
	switch e.Protocol {
	case "http", "https":
		return r.httpAuth(ctx, e)
	case "ssh":
		path := os.Getenv(SSHKeyFileEnv)
		if path == "" {
			return nil, nil
		}
		user := e.User
		if user == "" {
			user = gitssh.DefaultUsername
		}
		auth, err := gitssh.NewPublicKeysFromFile(user, path, "")
		if err != nil {
			return nil, fmt.Errorf("cannot use the SSH key of %s: %w", SSHKeyFileEnv, err)
		}
		return auth, nil
	}
	return nil, nil
}

// httpAuth takes credentials from the environment, the URL, or git's own
// configuration (an extra header, as CI checkouts leave it, or a credential
// helper), in this order.
func (r *Repository) httpAuth(ctx context.Context, e *target) (transport.AuthMethod, error) {
	if path := os.Getenv(TokenFileEnv); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the token of %s: %w", TokenFileEnv, err)
		}
		token := string(bytes.TrimSpace(data))
		if token == "" || len(data) > maxToken {
			return nil, fmt.Errorf("the file of %s holds no token", TokenFileEnv)
		}
		user := os.Getenv(UsernameEnv)
		if user == "" {
			user = "git"
		}
		return &githttp.BasicAuth{Username: user, Password: token}, nil
	}
	if e.user+e.password != "" {
		return &githttp.BasicAuth{Username: e.user, Password: e.password}, nil
	}
	url := display(e)
	if header := r.askGit(ctx, nil, "config", "--get-urlmatch", "http.extraheader", url); header != "" {
		name, value, ok := strings.Cut(header, ":")
		if ok {
			return extraHeader{strings.TrimSpace(name), strings.TrimSpace(value)}, nil
		}
	}
	filled := r.askGit(ctx, strings.NewReader("url="+url+"\n\n"), "credential", "fill")
	auth := &githttp.BasicAuth{}
	for line := range strings.Lines(filled) {
		switch key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "="); key {
		case "username":
			auth.Username = value
		case "password":
			auth.Password = value
		}
	}
	if auth.Password == "" {
		return nil, nil
	}
	return auth, nil
}

// askGit asks the git of this machine about its configuration, which has
// includes, conditions and helpers of its own. No git, or no answer, is "".
func (r *Repository) askGit(ctx context.Context, stdin *strings.Reader, args ...string) string {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", r.dir}, args...)...)
	// Never wait for somebody to type.
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=")
	if stdin != nil {
		cmd.Stdin = stdin
	}
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(out), "\n")
}

// extraHeader is a header of git's http.<url>.extraheader.
type extraHeader struct{ name, value string }

// Name implements transport.AuthMethod.
func (extraHeader) Name() string { return "http-extra-header" }

// String implements transport.AuthMethod; it hides the value.
func (h extraHeader) String() string { return h.name + ": ***" }

// SetAuth implements go-git's http.AuthMethod.
func (h extraHeader) SetAuth(r *http.Request) { r.Header.Set(h.name, h.value) }

// explain says what to check when a remote doesn't do as asked.
func explain(e *target, what string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		hint = fmt.Sprintf("; give a token with %s, or set up git's credential helper", TokenFileEnv)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		hint = "; check the remote's URL"
	}
	return fmt.Errorf("cannot %s %s: %w%s", what, display(e), err, hint)
}
