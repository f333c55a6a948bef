package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const (
	// DefaultMaxOutput caps an answer where Command says nothing.
	DefaultMaxOutput = 1 << 20
	// maxErrorText is how much of a dead child's last words is kept.
	maxErrorText = 4 << 10
	// waitDelay is how long pipes may stay open after the child is gone.
	waitDelay = 5 * time.Second
)

// Command is one run of a hidden command.
type Command struct {
	// Executable is the binary; "" means the one that is running.
	Executable string
	// Name is the hidden command's name, its only argument.
	Name string
	// Component is host.Error's, for failures of the process itself.
	Component string
	// Stdin is the request: anything that encodes to JSON.
	Stdin any
	// MaxOutput caps the answer in bytes; 0 means DefaultMaxOutput.
	MaxOutput int64
	// Env is added to the environment that the child inherits.
	Env []string
	// Limits hold for the child before it reads its request.
	Limits Limits
	// User is who the child runs as where this process is root: "UID:GID" or an
	// account; "" and Root mean the same user. There is no way back to more rights: a
	// child that can't be started so isn't started.
	User string
	// Files are the child's descriptors from 3 on.
	Files []*os.File
	// Progress, if set, is called with each whole line of stderr, without its
	// newline, from another goroutine, and never after Run returned. Without it
	// the end of stderr only explains a child that died.
	Progress func(line []byte)
}

// Run starts the command, waits for it, and decodes its answer into result
// (nil discards it). A failure that the child reported comes back as the
// *host.Error that it was there. A child that could not be started, died,
// or answered nonsense is a retryable *host.Error with ReasonInternal; it wraps
// a *LimitError where a limit was the cause. When ctx or the deadline
// ends, the child's process group is killed; the error wraps ctx's.
// Neither the child nor what it starts can gain rights by running a file.
// Safe for concurrent use.
func Run(ctx context.Context, c Command, result any) error {
	request, err := json.Marshal(c.Stdin)
	if err != nil {
		return c.failed(fmt.Errorf("cannot encode the request: %w", err))
	}
	limit := c.MaxOutput
	if limit <= 0 {
		limit = DefaultMaxOutput
	}
	stdout := &capped{limit: limit}
	stderr := &lines{each: c.Progress}

	expired := &LimitError{"time", c.Limits.Deadline.String()}
	if c.Limits.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Limits.Deadline, expired)
		defer cancel()
	}
	cmd, done, err := c.build(ctx)
	if err != nil {
		return c.failed(err)
	}
	defer done()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), stdout, stderr
	runErr := runOnOwnThread(cmd)
	stderr.flush()
	if err := context.Cause(ctx); err != nil {
		if errors.Is(err, error(expired)) {
			return c.failed(err)
		}
		return c.failed(fmt.Errorf("stopped before it was done: %w", err))
	}
	if stdout.over {
		return c.failed(fmt.Errorf("answered with more than %d bytes", limit))
	}
	if runErr == nil {
		return c.decode(stdout.data.Bytes(), result)
	}
	if reached := c.Limits.reached(cmd.ProcessState, stderr.text()); reached != nil {
		return c.failed(reached)
	}
	if text := stderr.text(); text != "" {
		runErr = fmt.Errorf("%w: %s", runErr, text)
	}
	return c.failed(runErr)
}

// runOnOwnThread runs a command on a thread that ends afterwards. The kernel sends
// the parent-death signal when the thread that forked ends, so it must last as
// long as the child; and what it gives up for the child it never gets back.
func runOnOwnThread(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			result <- fmt.Errorf("cannot give up gaining privileges: %w", err)
			return
		}
		result <- cmd.Run()
	}()
	return <-result
}

// build is the one place where child processes are described. The function that
// it returns must be called when the command has ended.
func (c Command) build(ctx context.Context) (*exec.Cmd, func(), error) {
	executable, done := c.Executable, func() {}
	if executable == "" {
		var err error
		if executable, err = os.Executable(); err != nil {
			return nil, nil, err
		}
	}
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != "" && c.User != Root && os.Geteuid() == 0 {
		var err error
		if attributes.Credential, err = credential(c.User); err != nil {
			return nil, nil, err
		}
		file, path, err := openExecutable(executable)
		if err != nil {
			return nil, nil, err
		}
		executable, done = path, func() { _ = file.Close() }
	}
	limits, err := c.Limits.environment()
	if err != nil {
		done()
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, executable, c.Name)
	cmd.Env = slices.Concat(os.Environ(), c.Env, limits)
	cmd.ExtraFiles = c.Files
	cmd.SysProcAttr = attributes
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	return cmd, done, nil
}

func (c Command) decode(data []byte, result any) error {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return c.failed(fmt.Errorf("gave no valid answer: %w", err))
	}
	switch {
	case a.Error != nil:
		return a.Error.asHost()
	case a.Result == nil:
		return c.failed(errors.New("gave neither a result nor an error"))
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return c.failed(fmt.Errorf("gave a result that can't be read: %w", err))
	}
	return nil
}

func (c Command) failed(err error) error {
	component := c.Component
	if component == "" {
		component = "agent"
	}
	return &host.Error{
		Component: component, Reason: v1.ReasonInternal, Retry: true,
		Err: fmt.Errorf("child process %s: %w", c.Name, err),
	}
}

// capped keeps up to limit bytes and remembers that there were more. It takes
// everything, so that the child is not blocked on a full pipe.
// The buffer is no embedded field: its ReadFrom would get round Write.
type capped struct {
	data  bytes.Buffer
	limit int64
	over  bool
}

func (b *capped) Write(p []byte) (int, error) {
	if int64(b.data.Len()+len(p)) > b.limit {
		b.over = true
		return len(p), nil
	}
	return b.data.Write(p)
}

// lines cuts what is written to it into lines, and keeps the end of it, or of
// a crash its beginning, where the cause stands.
type lines struct {
	each    func([]byte)
	partial []byte
	tail    []byte
}

func (l *lines) Write(p []byte) (int, error) {
	crashed := bytes.Contains(l.tail, []byte("fatal error: ")) || bytes.Contains(l.tail, []byte("panic: "))
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - maxErrorText; over > 0 && crashed {
		l.tail = l.tail[:maxErrorText]
	} else if over > 0 {
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	if l.each == nil {
		return len(p), nil
	}
	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte{'\n'})
		if !found {
			break
		}
		l.each(line)
		l.partial = append([]byte(nil), rest...)
	}
	if len(l.partial) > maxErrorText { // no newline in sight: not a progress line
		l.partial = nil
	}
	return len(p), nil
}

func (l *lines) flush() {
	if l.each != nil && len(l.partial) > 0 {
		l.each(l.partial)
		l.partial = nil
	}
}

func (l *lines) text() string { return strings.TrimSpace(string(l.tail)) }
