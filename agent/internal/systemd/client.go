package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Scope says whose manager it is.
type Scope int

// The scopes.
const (
	System Scope = iota
	User
)

// Config is how to reach a manager.
type Config struct {
	Scope Scope
	// RuntimeDir is $XDG_RUNTIME_DIR; only for User.
	RuntimeDir string
	// JobTimeout bounds one start, stop, restart or reload; default 2 minutes,
	// which is above systemd's own limits for units that don't set others.
	JobTimeout time.Duration
}

const (
	defaultJobTimeout = 2 * time.Minute
	// callTimeout bounds every call but those that wait for jobs. A daemon-reload
	// of a big machine takes seconds.
	callTimeout = 30 * time.Second
	dialTimeout = 5 * time.Second
	// idleAfter is when an unused connection is closed: over the private socket a
	// manager sends every signal to everybody, which would wake an agent at rest.
	idleAfter = 30 * time.Second
)

// ErrUnreachable is in the chain of every error that says that the manager
// could not be reached.
var ErrUnreachable = errors.New("systemd cannot be reached")

// Client speaks to one manager. It is safe for concurrent use.
type Client struct {
	cfg Config

	mu     sync.Mutex
	conn   *connection
	cancel context.CancelFunc // ends conn
	idle   *time.Timer
	users  int // calls that use conn now
}

// connection is what go-systemd offers, and beneath it the connection that it
// sends calls on, for what it can't do: many at once.
type connection struct {
	*sd.Conn
	calls *dbus.Conn
}

// New returns a client. It connects when it is first used, so that an agent can
// start, and report, before its manager.
func New(cfg Config) *Client {
	if cfg.JobTimeout == 0 {
		cfg.JobTimeout = defaultJobTimeout
	}
	return &Client{cfg: cfg}
}

// Ping checks that the manager answers.
func (c *Client) Ping(ctx context.Context) error {
	return c.call(ctx, "", func(ctx context.Context, conn *connection) error {
		_, err := conn.SystemStateContext(ctx)
		return err
	})
}

// Close ends the connection. A later call opens another.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// drop forgets the connection; c.mu is held.
func (c *Client) drop() {
	if c.conn == nil {
		return
	}
	c.conn.Close()
	c.cancel()
	c.conn, c.cancel = nil, nil
}

// acquire returns a live connection; release must be called after its use.
func (c *Client) acquire(ctx context.Context) (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && !c.conn.Connected() {
		c.drop()
	}
	if c.conn == nil {
		lifetime, cancel := context.WithCancel(context.Background())
		conn, err := dialWithin(ctx, cancel, func() (*connection, error) { return c.cfg.connect(lifetime) })
		if err != nil {
			cancel()
			return nil, err
		}
		c.conn, c.cancel = conn, cancel
	}
	c.users++
	if c.idle != nil {
		c.idle.Stop()
	}
	return c.conn, nil
}

func (c *Client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	if c.users > 0 {
		return
	}
	if c.idle == nil {
		c.idle = time.AfterFunc(idleAfter, c.closeIdle)
		return
	}
	c.idle.Reset(idleAfter)
}

func (c *Client) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == 0 {
		c.drop()
	}
}

// call runs do with a live connection, once more if the connection turns out to
// be dead: do must be harmless to repeat. element is for errors.
func (c *Client) call(ctx context.Context, element string, do func(context.Context, *connection) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for try := 0; ; try++ {
		conn, err := c.acquire(ctx)
		if err != nil {
			return c.unreachable(element, err)
		}
		err = do(ctx, conn)
		c.release()
		switch {
		case err == nil:
			return nil
		case lost(err) && ctx.Err() == nil && try == 0:
			continue
		case lost(err), errors.Is(err, context.DeadlineExceeded):
			return c.unreachable(element, err)
		}
		return err
	}
}

// lost reports whether err says that a connection ended.
func lost(err error) bool {
	return errors.Is(err, dbus.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// dialWithin runs dial, and cancels what it does when ctx ends before it.
func dialWithin[T any](ctx context.Context, cancel context.CancelFunc, dial func() (T, error)) (T, error) {
	ctx, done := context.WithTimeout(ctx, dialTimeout)
	defer done()
	stop := context.AfterFunc(ctx, cancel)
	conn, err := dial()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return conn, err
}

// connect opens a connection for calls, and another for the answers of jobs.
func (cfg Config) connect(lifetime context.Context) (*connection, error) {
	var calls *dbus.Conn
	conn, err := sd.NewConnection(func() (*dbus.Conn, error) {
		c, err := cfg.dial(lifetime)
		if calls == nil {
			calls = c // go-systemd opens the one for calls first
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, calls: calls}, nil
}

// dial opens one authenticated connection that lives as long as lifetime: over
// the private socket, or else over the bus.
func (cfg Config) dial(lifetime context.Context) (*dbus.Conn, error) {
	private, privateErr := authenticated(lifetime, "unix:path="+cfg.socket())
	if privateErr == nil {
		return private, nil
	}
	bus, err := authenticated(lifetime, cfg.busAddress())
	if err != nil {
		return nil, errors.Join(privateErr, err)
	}
	if err := bus.Hello(); err != nil {
		return nil, errors.Join(privateErr, err, bus.Close())
	}
	return bus, nil
}

func authenticated(lifetime context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address, dbus.WithContext(lifetime))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(fmt.Sprint(os.Getuid()))}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (cfg Config) socket() string {
	if cfg.Scope == User {
		return filepath.Join(cfg.RuntimeDir, "systemd", "private")
	}
	return "/run/systemd/private"
}

func (cfg Config) busAddress() string {
	if cfg.Scope == User {
		return "unix:path=" + filepath.Join(cfg.RuntimeDir, "bus")
	}
	return "unix:path=/run/dbus/system_bus_socket"
}

// unreachable explains that the manager can't be reached, and what to do.
func (c *Client) unreachable(element string, cause error) error {
	advice := "is this machine booted with systemd, and does the agent run as root?"
	if c.cfg.Scope == User {
		advice = "a user manager runs while its user is logged in, or always after: loginctl enable-linger"
	}
	return &host.Error{
		Component: "systemd", Element: element, Reason: v1.ReasonSystemdMissing, Retry: true,
		Err: fmt.Errorf("%w at %s (%w); %s", ErrUnreachable, c.cfg.socket(), cause, advice),
	}
}

// command is how a person runs systemctl or journalctl for this manager.
func (c *Client) command(name string) string {
	if c.cfg.Scope == User {
		return name + " --user"
	}
	return name
}
