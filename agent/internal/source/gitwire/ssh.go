package gitwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// SSHConfig says where to go, who we are, and whom we expect there.
type SSHConfig struct {
	Host, Port, User string
	// Path is the repository's on that host.
	Path string
	// Key is a private key in OpenSSH's or PEM's form, without a passphrase.
	Key []byte
	// KnownHosts is the content of a known_hosts file. A host that isn't in it, or
	// has another key, is refused.
	KnownHosts []byte
}

// SSH is a Transport over one SSH session.
type SSH struct {
	client  *ssh.Client
	session *ssh.Session
	stop    func() bool
	stdin   io.Writer
	stdout  io.Reader
	stderr  lastWords
}

// DialSSH connects and starts git-upload-pack. The connection ends with ctx or
// Close.
func DialSSH(ctx context.Context, c SSHConfig) (*SSH, error) {
	signer, err := ssh.ParsePrivateKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot use the SSH key: %w", err)
	}
	hosts, err := parseKnownHosts(c.KnownHosts)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(c.Host, c.Port)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &SSH{stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	sshConn, channels, requests, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User:              c.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   hosts.HostKeyCallback(),
		HostKeyAlgorithms: hosts.HostKeyAlgorithms(addr),
	})
	if err != nil {
		t.stop()
		closeQuietly(conn)
		return nil, explainSSH(ctx, addr, err)
	}
	t.client = ssh.NewClient(sshConn, channels, requests)
	if err := t.start(c.Path); err != nil {
		return nil, errors.Join(explainSSH(ctx, addr, err), t.Close())
	}
	return t, nil
}

func (t *SSH) start(path string) (err error) {
	if t.session, err = t.client.NewSession(); err != nil {
		return err
	}
	// Many servers accept no variables; they speak version 0 then.
	_ = t.session.Setenv("GIT_PROTOCOL", "version=2")
	if t.stdin, err = t.session.StdinPipe(); err != nil {
		return err
	}
	if t.stdout, err = t.session.StdoutPipe(); err != nil {
		return err
	}
	t.session.Stderr = &t.stderr
	return t.session.Start("git-upload-pack '" + strings.ReplaceAll(path, "'", `'\''`) + "'")
}

// Close ends the connection.
func (t *SSH) Close() error {
	t.stop()
	if err := t.client.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Advertise implements Transport.
func (t *SSH) Advertise(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(t), nil
}

// Post implements Transport.
func (t *SSH) Post(_ context.Context, body []byte) (io.ReadCloser, error) {
	if _, err := t.stdin.Write(body); err != nil {
		return nil, t.ended(err)
	}
	return io.NopCloser(t), nil
}

// Read reads what git-upload-pack answers.
func (t *SSH) Read(p []byte) (int, error) {
	n, err := t.stdout.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		return 0, t.ended(err)
	}
	return n, err
}

// ended says why git-upload-pack left, if it said so.
func (t *SSH) ended(err error) error {
	_ = t.session.Wait()
	if words := t.stderr.text(); len(words) > 0 {
		return serverError(words)
	}
	return err
}

// parseKnownHosts reads a known_hosts file's content. The library reads files
// only, and this process may have none of its own: hence a file in memory.
func parseKnownHosts(content []byte) (*knownhosts.HostKeyDB, error) {
	fd, err := unix.MemfdCreate("known_hosts", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot read known hosts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "known_hosts")
	defer closeQuietly(f)
	if _, err := f.Write(content); err != nil {
		return nil, fmt.Errorf("cannot read known hosts: %w", err)
	}
	db, err := knownhosts.NewDB(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("cannot read known hosts: %w", err)
	}
	return db, nil
}

// explainSSH says what to do about a handshake that failed.
func explainSSH(ctx context.Context, addr string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no SSH session with %s in time: %w", addr, context.Cause(ctx))
	case knownhosts.IsHostKeyChanged(err):
		return fmt.Errorf("%s shows another SSH host key than known_hosts has: if its key was changed on purpose, update the known hosts file", addr)
	case knownhosts.IsHostUnknown(err):
		return fmt.Errorf("%s is not in the known hosts file: add its SSH host key (ssh-keyscan shows it; compare it with what the server's owner says)", addr)
	}
	return fmt.Errorf("cannot begin an SSH session with %s: %w", addr, err)
}

// lastWords keeps the start of stderr.
type lastWords struct {
	mu   sync.Mutex
	kept []byte
}

func (w *lastWords) Write(p []byte) (int, error) {
	const enough = 4 << 10
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p[:min(len(p), enough-len(w.kept))]...)
	return len(p), nil
}

func (w *lastWords) text() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.TrimSpace(w.kept)
}
