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
	"strings"
	"syscall"
	"time"

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
	// Progress, if set, is called with each whole line of stderr, without its
	// newline, from another goroutine, and never after Run returned. Without it
	// the end of stderr only explains a child that died.
	Progress func(line []byte)
}

// Run starts the command, waits for it, and decodes its answer into result
// (nil discards it). A failure that the child reported comes back as the
// *host.Error that it was there. A child that could not be started, died,
// or answered nonsense is a retryable *host.Error with ReasonInternal. When ctx
// ends, the child's process group is killed and the error wraps ctx's.
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

	// The kernel sends the parent-death signal when the thread that forked ends,
	// so that thread must last as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := c.build(ctx)
	if err != nil {
		return c.failed(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), stdout, stderr
	runErr := cmd.Run()
	stderr.flush()
	if ctx.Err() != nil {
		return c.failed(fmt.Errorf("stopped before it was done: %w", context.Cause(ctx)))
	}
	if stdout.over {
		return c.failed(fmt.Errorf("answered with more than %d bytes", limit))
	}
	if runErr != nil {
		if text := stderr.text(); text != "" {
			runErr = fmt.Errorf("%w: %s", runErr, text)
		}
		return c.failed(runErr)
	}
	return c.decode(stdout.data.Bytes(), result)
}

// build is the one place where child processes are described.
func (c Command) build(ctx context.Context) (*exec.Cmd, error) {
	executable := c.Executable
	if executable == "" {
		var err error
		if executable, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, executable, c.Name)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	return cmd, nil
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

// lines cuts what is written to it into lines, and keeps the end of it.
type lines struct {
	each    func([]byte)
	partial []byte
	tail    []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - maxErrorText; over > 0 {
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
