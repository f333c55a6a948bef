package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what a child may take of the machine. Zero is no limit.
type Limits struct {
	// Memory is what the child may map for its data beyond what it had when it
	// began, in bytes. Over it the Go runtime ends the process.
	Memory int64 `json:"memory,omitempty"`
	// CPUTime is rounded up to seconds. Over it the child ends itself; should it
	// not, the kernel kills it soon after.
	CPUTime time.Duration `json:"cpuTime,omitempty"`
	// FileSize is the largest file that may be written, in bytes. A write beyond
	// fails with EFBIG, which the child reports as an error like any other.
	FileSize int64 `json:"fileSize,omitempty"`
	// OpenFiles is how many file descriptors may be open at once.
	OpenFiles int64 `json:"openFiles,omitempty"`
	// Deadline is how long Run waits, before it kills the process group.
	Deadline time.Duration `json:"-"`
}

// LimitError says that a child was ended because it reached a limit.
type LimitError struct {
	// Limit is "memory", "CPU time" or "time", Value how much that was.
	Limit, Value string
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("ended because it needed more than %s of %s", e.Value, e.Limit)
}

const (
	// limitsEnv carries Limits to Serve. They are no secret.
	limitsEnv = "GPUAAS_CHILD_LIMITS"
	mebibyte  = 1 << 20
	// exitCPUTime is what a shell would say of a process that SIGXCPU ended.
	exitCPUTime = 128 + int(unix.SIGXCPU)
	// cpuGrace is how many seconds more a child has that doesn't end itself.
	cpuGrace = 2
)

// apply makes the limits hold for this process, before it reads anything. Hard
// limits that are lower already stay.
func (l Limits) apply() error {
	// A limit on file sizes shall be an error of the write, not the end of the process.
	signal.Ignore(unix.SIGXFSZ)
	// Others of the same user mustn't read secrets out of it, nor a core dump hold them.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot close the process to debuggers: %w", err)
	}
	errs := []error{lower(unix.RLIMIT_CORE, 0)}
	if l.Memory > 0 {
		base, err := dataSize()
		if err != nil {
			return err
		}
		errs = append(errs, lower(unix.RLIMIT_DATA, base+l.Memory))
		// Collect garbage in time, where the child has no tighter aim of its own.
		if aim := l.Memory / 2; debug.SetMemoryLimit(-1) > aim {
			debug.SetMemoryLimit(aim)
		}
	}
	if l.CPUTime > 0 {
		errs = append(errs, l.limitCPU())
	}
	if l.FileSize > 0 {
		errs = append(errs, lower(unix.RLIMIT_FSIZE, l.FileSize))
	}
	if l.OpenFiles > 0 {
		errs = append(errs, lower(unix.RLIMIT_NOFILE, l.OpenFiles))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot limit the child process: %w", err)
	}
	return nil
}

// limitCPU ends the process when the kernel says that its time is over. An exit
// code tells the parent why, which a kill could not.
func (l Limits) limitCPU() error {
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() {
		<-over
		os.Exit(exitCPUTime)
	}()
	if err := lower(unix.RLIMIT_CPU, l.seconds()+cpuGrace); err != nil {
		return err
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &now); err != nil {
		return err
	}
	now.Cur = min(now.Cur, uint64(l.seconds()))
	return unix.Setrlimit(unix.RLIMIT_CPU, &now)
}

// seconds is what the kernel counts CPU time in.
func (l Limits) seconds() int64 { return int64((l.CPUTime + time.Second - 1) / time.Second) }

func lower(resource int, to int64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	limit := min(uint64(to), now.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}

// dataSize is what RLIMIT_DATA counts of this process now: a Go process has
// mapped tens of MiB before it begins, how many depends on how it was built.
func dataSize() (int64, error) {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("cannot tell the process's size: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return 0, fmt.Errorf("cannot tell the process's size: %w", err)
	}
	var size, resident, shared, code, lib, data int64
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared, &code, &lib, &data); err != nil {
		return 0, fmt.Errorf("cannot tell the process's size from %q: %w", text, err)
	}
	return data * int64(os.Getpagesize()), nil
}

// environment is what a child with these limits is started with.
func (l Limits) environment() ([]string, error) {
	text, err := json.Marshal(l)
	return []string{limitsEnv + "=" + string(text)}, err
}

// fromEnvironment returns the limits that the parent set, none where it set none.
func fromEnvironment() (Limits, bool, error) {
	text, ok := os.LookupEnv(limitsEnv)
	if !ok {
		return Limits{}, false, nil
	}
	var l Limits
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return l, true, fmt.Errorf("cannot read %s: %w", limitsEnv, err)
	}
	return l, true, nil
}

// reached tells by the way a child ended which limit ended it, nil if none did.
func (l Limits) reached(state *os.ProcessState, words string) *LimitError {
	if state == nil {
		return nil
	}
	switch {
	case l.Memory > 0 && outOfMemory(words):
		return &LimitError{"memory", fmt.Sprintf("%d MiB", l.Memory/mebibyte)}
	case l.CPUTime > 0 && state.ExitCode() == exitCPUTime:
		return &LimitError{"CPU time", fmt.Sprintf("%d s", l.seconds())}
	}
	return nil
}

// outOfMemory knows the last words of a Go process that got no memory.
func outOfMemory(words string) bool {
	for _, mark := range []string{"out of memory", "cannot allocate memory", "pthread_create failed", "failed to create new OS thread"} {
		if strings.Contains(words, mark) {
			return true
		}
	}
	return false
}
