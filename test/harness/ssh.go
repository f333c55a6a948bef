package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sshPatience is how long sshd may take to answer.
const sshPatience = 30 * time.Second

// SSHOptions of NewSSHServer.
type SSHOptions struct {
	// AcceptProtocol lets clients choose git's protocol version, as the forges
	// do and a plain sshd doesn't.
	AcceptProtocol bool
}

// SSHServer is a real OpenSSH server on a loopback port that lets in whoever
// has its key, as the user who runs the test.
type SSHServer struct {
	// Port is the port of 127.0.0.1.
	Port string
	// User is who logs in.
	User string
	// KeyFile is the client's private key, KnownHostsFile tells the server's.
	KeyFile, KnownHostsFile string
	// Log is the server's own.
	Log string
}

// URL returns the ssh URL of an absolute path.
func (s *SSHServer) URL(path string) string {
	return fmt.Sprintf("ssh://%s@127.0.0.1:%s%s", s.User, s.Port, path)
}

// NewSSHServer starts a server for one test and stops it when the test ends.
// A machine without OpenSSH's server fails the test.
func NewSSHServer(tb testing.TB, opts SSHOptions) *SSHServer {
	tb.Helper()
	sshd, keygen := find(tb, "sshd", "openssh-server"), find(tb, "ssh-keygen", "openssh-client")
	who, err := user.Current()
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	s := &SSHServer{User: who.Username, KeyFile: filepath.Join(dir, "key"), KnownHostsFile: filepath.Join(dir, "known_hosts"), Log: filepath.Join(dir, "log")}
	for _, path := range []string{s.KeyFile, filepath.Join(dir, "host")} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path).CombinedOutput(); err != nil {
			tb.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	s.Port = freePort(tb)
	hostKey := read(tb, filepath.Join(dir, "host.pub"))
	write(tb, s.KnownHostsFile, fmt.Sprintf("[127.0.0.1]:%s %s", s.Port, hostKey))
	write(tb, filepath.Join(dir, "authorized_keys"), read(tb, s.KeyFile+".pub"))
	accept := ""
	if opts.AcceptProtocol {
		accept = "AcceptEnv GIT_PROTOCOL\n"
	}
	// Another home keeps the user's own shell startup files out of it.
	write(tb, filepath.Join(dir, "config"), fmt.Sprintf(`Port %s
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME=%s
%s`, s.Port, filepath.Join(dir, "host"), filepath.Join(dir, "authorized_keys"), dir, accept))
	s.start(tb, sshd, filepath.Join(dir, "config"))
	return s
}

func (s *SSHServer) start(tb testing.TB, sshd, config string) {
	tb.Helper()
	// sshd drops its privileges into this folder, which its package's service
	// makes at boot.
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.Command(sshd, "-D", "-E", s.Log, "-f", config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			tb.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	for deadline := time.Now().Add(sshPatience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.Port)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("sshd doesn't answer: %v\n%s%s", err, stderr.String(), read(tb, s.Log))
		}
	}
}

// find returns the path of a program, which may be where only root looks.
func find(tb testing.TB, name, pkg string) string {
	tb.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	tb.Fatalf("%s is missing: install the package %s", name, pkg)
	return ""
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
}
