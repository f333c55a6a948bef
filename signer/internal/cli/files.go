package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/gpuaas/node-agent/internal/exitcode"
)

const maxPassphraseFile = 64 << 10

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// emptyFolder reports whether path is an empty folder or not there at all.
func emptyFolder(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return len(entries) == 0, err
}

// realPath is path without symlinks, as far as it exists.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) && abs != filepath.Dir(abs) {
		parent, err := realPath(filepath.Dir(abs))
		return filepath.Join(parent, filepath.Base(abs)), err
	}
	return real, err
}

// passphraseFile reads a passphrase: the file's content without the last newline.
func passphraseFile(path string) ([]byte, error) {
	data, err := readLimited(path, maxPassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(data) == 0 {
		return nil, fmt.Errorf("cannot use the passphrase in %s: it is empty", path)
	}
	return data, nil
}

// askPassphrase asks on the terminal, or fails where there is none.
func (o *options) askPassphrase(prompt string) ([]byte, error) {
	return o.ask(prompt, "a passphrase", "give --passphrase-file")
}

// askPIN asks for the PIN of a token.
func (o *options) askPIN(prompt string) ([]byte, error) {
	return o.ask(prompt, "a PIN", "name a file with it in the key's URI, as pin-source=file:/path")
}

// ask asks for a secret on the terminal. Where there is none it says what else helps.
func (o *options) ask(prompt, what, instead string) ([]byte, error) {
	f, ok := o.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, exitcode.UsageError(fmt.Errorf("%s is needed and there is no terminal to ask on; %s", what, instead))
	}
	fmt.Fprint(o.stderr, prompt)
	data, err := readSecret(int(f.Fd()))
	fmt.Fprintln(o.stderr)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", what, err)
	}
	return data, nil
}

// readSecret reads a line from a terminal without showing it, until somebody
// interrupts: a read goes on through signals that the process handles.
func readSecret(fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	type answer struct {
		data []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		data, err := term.ReadPassword(fd)
		answers <- answer{data, err}
	}()
	select {
	case a := <-answers:
		return a.data, a.err
	case <-ctx.Done():
		return nil, errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
