package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/gpuaas/node-agent/test/harness"
)

// serveCommand makes this program a git server in a process of its own, whose
// costs are nobody's but its own.
const serveCommand = "serve-git"

// serveGit serves root until stdin ends. Each line on stdin is answered by one
// with the bytes since the line before.
func serveGit(root string, stdin io.Reader, stdout io.Writer) error {
	server, err := harness.StartGitServer(harness.GitServerOptions{Root: root})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, server.URL); err != nil {
		return err
	}
	for lines := bufio.NewScanner(stdin); lines.Scan(); server.Reset() {
		in, out := server.WireBytes()
		if _, err := fmt.Fprintln(stdout, in+out); err != nil {
			return err
		}
	}
	return server.Stop()
}

// gitServer is the parent's end of serveGit.
type gitServer struct {
	url    string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startGitServer(ctx context.Context, root string) (*gitServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &gitServer{cmd: exec.CommandContext(ctx, self, serveCommand, root)}
	s.cmd.Stderr = os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdout = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.url = strings.TrimSpace(line)
	return s, nil
}

// wire returns the bytes since the last call, both ways.
func (s *gitServer) wire() (bytes int64, err error) {
	if _, err := fmt.Fprintln(s.stdin); err != nil {
		return 0, err
	}
	_, err = fmt.Fscanln(s.stdout, &bytes)
	return bytes, err
}

func (s *gitServer) stop() error { return errors.Join(s.stdin.Close(), s.cmd.Wait()) }
