package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// RegistryBinaryEnv names the distribution v3 binary that StartRegistry runs.
const RegistryBinaryEnv = "GPUAAS_TEST_REGISTRY"

// registryPatience is how long a registry may take to begin or to end.
const registryPatience = 60 * time.Second

// RegistryOptions of StartRegistry. All but Dir may be left zero: an open
// registry on a free port.
type RegistryOptions struct {
	// Dir keeps the registry's configuration and content.
	Dir string
	// Addr is where to listen; "" means a free port of 127.0.0.1.
	Addr string
	// User and Password, if set, are demanded of every request.
	User, Password string
}

// Registry is a real distribution v3 registry with its content on disk. Its
// methods must not be called concurrently.
type Registry struct {
	// Host is "127.0.0.1:port": what comes before the slash in a package's ref.
	Host string
	// Pid is that of the process, 0 while it is stopped.
	Pid int

	opts   RegistryOptions
	cancel context.CancelFunc
	done   chan error
}

// NewRegistry starts a registry for one test, in a temporary folder unless the
// options name one, and stops it when the test ends.
func NewRegistry(tb testing.TB, opts RegistryOptions) *Registry {
	tb.Helper()
	if opts.Dir == "" {
		opts.Dir = tb.TempDir()
	}
	r, err := StartRegistry(context.Background(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// StartRegistry starts a registry and returns when it answers. It runs until
// Stop, the end of ctx, or the end of this process, whichever comes first.
func StartRegistry(ctx context.Context, opts RegistryOptions) (*Registry, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	r := &Registry{opts: opts}
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	// A registry that comes back must be found where it was.
	r.opts.Addr = r.Host
	return r, nil
}

// Start begins a stopped registry again: same address, same content.
func (r *Registry) Start(ctx context.Context) error {
	binary, err := registryBinary()
	if err != nil {
		return err
	}
	config, err := r.writeConfig()
	if err != nil {
		return fmt.Errorf("cannot configure the registry: %w", err)
	}
	ctx, r.cancel = context.WithCancel(ctx)
	log := &registryLog{addr: make(chan string, 1)}
	cmd := exec.CommandContext(ctx, binary, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = registryPatience
	if err := r.run(cmd); err != nil {
		r.cancel()
		return fmt.Errorf("cannot start the registry %s: %w", binary, err)
	}
	select {
	case r.Host = <-log.addr:
	case err := <-r.done:
		r.Pid = 0
		return fmt.Errorf("the registry ended at once: %w: %s", err, log)
	case <-time.After(registryPatience):
		return errors.Join(fmt.Errorf("the registry did not begin to listen: %s", log), r.Stop())
	}
	if err := r.ping(ctx); err != nil {
		return errors.Join(fmt.Errorf("the registry does not answer: %w: %s", err, log), r.Stop())
	}
	return nil
}

// run starts cmd and waits for it on a thread of its own, because the
// parent-death signal comes when the thread that forked ends.
func (r *Registry) run(cmd *exec.Cmd) error {
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	r.Pid, r.done = cmd.Process.Pid, done
	return nil
}

// Stop ends the process and waits for it. The content stays. Stopping twice is fine.
func (r *Registry) Stop() error {
	if r.Pid == 0 {
		return nil
	}
	r.cancel()
	err := <-r.done
	r.Pid = 0
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("cannot stop the registry: %w", err)
	}
	return nil
}

func (r *Registry) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
		if err != nil {
			return err
		}
		req.SetBasicAuth(r.opts.User, r.opts.Password)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *Registry) writeConfig() (string, error) {
	auth := ""
	if r.opts.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(r.opts.Password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		users := filepath.Join(r.opts.Dir, "htpasswd")
		if err := os.WriteFile(users, []byte(r.opts.User+":"+string(hash)+"\n"), 0o600); err != nil {
			return "", err
		}
		auth = fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", users)
	}
	text := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %q}
%s`, filepath.Join(r.opts.Dir, "content"), r.opts.Addr, auth)
	path := filepath.Join(r.opts.Dir, "registry.yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// registryBinary finds distribution's binary: environment, PATH, then the
// cache folder of the repository that the tests run in.
func registryBinary() (string, error) {
	if path := os.Getenv(RegistryBinaryEnv); path != "" {
		return path, nil
	}
	if path, err := exec.LookPath("registry"); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".cache", "bin", "registry")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no OCI registry to test with: run `make servers` at the top of the repository, "+
		"which builds distribution v3 into .cache/bin, or set %s to the binary", RegistryBinaryEnv)
}

var listening = regexp.MustCompile(`listening on ([0-9.]+:[0-9]+|\[[0-9a-f:]+\]:[0-9]+)`)

// registryLog keeps the beginning of what a registry says, and finds in it the
// address that the kernel gave it.
type registryLog struct {
	mu    sync.Mutex
	text  []byte
	found bool
	addr  chan string
}

func (l *registryLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) < 64<<10 {
		l.text = append(l.text, p...)
	}
	if m := listening.FindSubmatch(l.text); m != nil && !l.found {
		l.found = true
		l.addr <- string(m[1])
	}
	return len(p), nil
}

func (l *registryLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
