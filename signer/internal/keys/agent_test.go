package keys_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// sshAgent is a real ssh-agent.
type sshAgent struct {
	socket string
	cmd    *exec.Cmd
}

func startAgent(t *testing.T, socket string) *sshAgent {
	t.Helper()
	path, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Fatal("ssh-agent is missing: install the package openssh-client")
	}
	a := &sshAgent{socket: socket, cmd: exec.Command(path, "-D", "-a", socket)}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("ssh-agent does not listen: %v", err)
		}
	}
}

func (a *sshAgent) stop() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		_ = os.Remove(a.socket)
	}
}

// do speaks to the agent as ssh-add would.
func (a *sshAgent) do(t *testing.T, what func(agent.ExtendedAgent) error) {
	t.Helper()
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := what(agent.NewClient(conn)); err != nil {
		t.Fatal(err)
	}
}

func (a *sshAgent) add(t *testing.T, key any, comment string) {
	t.Helper()
	a.do(t, func(c agent.ExtendedAgent) error { return c.Add(agent.AddedKey{PrivateKey: key, Comment: comment}) })
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	key, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func TestAgentConforms(t *testing.T) {
	dir := tight(t)
	socket := filepath.Join(dir, "s")
	a := startAgent(t, socket)
	theKey, other := newKey(t), newKey(t)
	wrong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	wrong2, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	fill := func() {
		a.add(t, &theKey, "fleet key")
		a.add(t, &other, "other")
		a.add(t, wrong, "rsa")
		a.add(t, wrong2, "fleet key") // another type is no rival for the comment
	}
	fill()
	fingerprint, err := keys.Fingerprint(publicOf(theKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"ssh-agent:" + fingerprint, "ssh-agent:fleet key"} {
		conform(t, custody{
			options: keys.Options{Env: env(map[string]string{"SSH_AUTH_SOCK": socket})},
			good:    good, other: "ssh-agent:other", public: publicOf(theKey),
			wrong: "ssh-agent:rsa", missing: "ssh-agent:nobody", absent: "has no key nobody",
			leave: func(*testing.T) { a.stop() },
			// Of the outer t: the next round needs it still.
			comeBack: func(*testing.T) { a = startAgent(t, socket); fill() },
		})
	}
}

func TestAgentRefuses(t *testing.T) {
	socket := filepath.Join(tight(t), "s")
	a := startAgent(t, socket)
	first, second := newKey(t), newKey(t)
	o := keys.Options{Env: env(map[string]string{"SSH_AUTH_SOCK": socket})}
	ctx := t.Context()

	_, err := keys.Open(ctx, "ssh-agent:x", o)
	says(t, err, "no keys at all", "ssh-add")
	a.add(t, &first, "same")
	a.add(t, &second, "same")
	_, err = keys.Open(ctx, "ssh-agent:same", o)
	says(t, err, "2 keys", "SHA256:")
	_, err = keys.Open(ctx, "ssh-agent:", o)
	says(t, err, "names no key")
	_, err = keys.Open(ctx, "ssh-agent:same", keys.Options{Env: env(nil)})
	says(t, err, "SSH_AUTH_SOCK is not set")

	fingerprint, err := keys.Fingerprint(publicOf(first))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Open(ctx, "ssh-agent:"+fingerprint, o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Sign(nil, make([]byte, 300<<10), nil)
	says(t, err, "307200 bytes", "at most")
	a.do(t, func(c agent.ExtendedAgent) error { return c.Lock([]byte("pw")) })
	_, err = s.Sign(nil, []byte("x"), nil)
	says(t, err, "did not sign", "ssh-add -l")
	a.do(t, func(c agent.ExtendedAgent) error { return c.Unlock([]byte("pw")) })
	mustSign(t, s, []byte("x"))
	a.do(t, func(c agent.ExtendedAgent) error { return c.RemoveAll() })
	_, err = s.Sign(nil, []byte("x"), nil)
	says(t, err, "did not sign")
}

// TestAgentThatIsNone speaks to sockets where something else answers.
func TestAgentThatIsNone(t *testing.T) {
	cases := []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"hangs up", func(c net.Conn) { _ = c.Close() }, "cannot list"},
		{"never answers", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "deadline exceeded"},
		{"endless", func(c net.Conn) { _, _ = c.Write([]byte{0xff, 0xff, 0xff, 0xff, 12}) }, "cannot list"},
		{"nonsense", func(c net.Conn) { _, _ = c.Write([]byte{0, 0, 0, 5, 12, 0xff, 0xff, 0xff, 0xff}) }, "cannot list"},
		{"refuses", func(c net.Conn) { _, _ = c.Write([]byte{0, 0, 0, 1, 5}) }, "cannot list"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(tight(t), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			t.Cleanup(func() { _ = l.Close(); <-served })
			go func() {
				defer close(served)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					c.answer(conn)
					_ = conn.Close()
				}
			}()
			o := keys.Options{Env: env(map[string]string{"SSH_AUTH_SOCK": socket})}
			if c.want == "deadline exceeded" {
				o.Timeout = 50 * time.Millisecond
			}
			within(t, func() {
				_, err = keys.Open(t.Context(), "ssh-agent:x", o)
			})
			says(t, err, c.want)
		})
	}
}
