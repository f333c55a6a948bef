// Command probe polls a signed branch as the agent does and tells what that
// cost. test/bench builds and runs it, because only code below agent/ can reach
// the package; it is no part of any release.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/source"
)

// cost is what the polls after the first took, all together.
type cost struct {
	Commit     string        `json:"commit"`
	Polls      int           `json:"polls"`
	Wall       time.Duration `json:"wall"`
	CPU        time.Duration `json:"cpu"`
	ChildCPU   time.Duration `json:"childCPU"`
	ChildRSS   int64         `json:"childRSS"`
	FilesBytes int           `json:"filesBytes"`
}

func main() {
	c := source.Config{Timeout: 10 * time.Minute, Version: "probe"}
	flag.StringVar(&c.URL, "url", "", "the repository")
	flag.StringVar(&c.Branch, "branch", "signed", "the branch")
	flag.StringVar(&c.RepoDir, "dir", "", "the source's folder")
	flag.StringVar(&c.Executable, "agent", "", "the agent's binary")
	wanted := flag.String("wanted", "", "files, separated by commas")
	known := flag.String("known", "", "the commit known before")
	polls := flag.Int("polls", 1, "how many polls to measure")
	warm := flag.Bool("warm", false, "poll once before measuring, which must bring nothing new")
	flag.Parse()
	c.Wanted = strings.Split(*wanted, ",")
	if err := run(c, *known, *polls, *warm); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(c source.Config, known string, polls int, warm bool) error {
	s, err := source.New(c)
	if err != nil {
		return err
	}
	defer s.Close()
	if warm {
		if snapshot, err := s.Poll(context.Background(), known); err != nil || snapshot != nil {
			return fmt.Errorf("the first poll brought %v, %w", snapshot, err)
		}
	}
	result := cost{Commit: known, Polls: polls}
	self, children, start := usage(syscall.RUSAGE_SELF), usage(syscall.RUSAGE_CHILDREN), time.Now()
	for range polls {
		snapshot, err := s.Poll(context.Background(), known)
		if err != nil {
			return err
		}
		if snapshot != nil {
			result.Commit, known = snapshot.Commit, snapshot.Commit
			for _, path := range snapshot.Paths() {
				data, _ := snapshot.ReadFile(path)
				result.FilesBytes += len(data)
			}
		}
	}
	result.Wall = time.Since(start)
	result.CPU = cpu(usage(syscall.RUSAGE_SELF)) - cpu(self)
	after := usage(syscall.RUSAGE_CHILDREN)
	result.ChildCPU, result.ChildRSS = cpu(after)-cpu(children), after.Maxrss<<10
	return json.NewEncoder(os.Stdout).Encode(result)
}

func usage(who int) syscall.Rusage {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		panic(err) // only an argument that doesn't exist fails
	}
	return u
}

func cpu(u syscall.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
