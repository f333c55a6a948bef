// Command disk-report measures folders and writes a report of the largest files
// in them. It is an example of a program that a timer runs.
//
//	disk-report -config FILE
//
// The report goes to report.json in $STATE_DIRECTORY, which systemd sets, or in
// the folder that -state names. File systems that are too full are also told on
// standard error, with the prefix by which journald knows a warning.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	config := flag.String("config", "", "configuration file")
	state := flag.String("state", os.Getenv("STATE_DIRECTORY"), "folder for report.json")
	flag.Parse()
	if err := run(*config, *state, time.Now(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "<3>disk-report:", err)
		os.Exit(1)
	}
}

func run(config, state string, now time.Time, log io.Writer) error {
	if config == "" || state == "" {
		return errors.New("needs -config, and -state or $STATE_DIRECTORY")
	}
	c, err := readConfig(config)
	if err != nil {
		return err
	}
	r := measure(c, now, statfs)
	for _, f := range r.Folders {
		if f.UsedPercent >= c.WarnAtPercent {
			fmt.Fprintf(log, "<4>the file system of %s is %d %% full\n", f.Path, f.UsedPercent)
		}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the report: %w", err)
	}
	return replace(filepath.Join(state, "report.json"), append(data, '\n'))
}

// replace writes a file so that readers see the old report or the new one.
func replace(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

// statfs returns how full the file system of a path is.
func statfs(path string) (percent int, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	used := s.Blocks - s.Bfree
	if total := used + s.Bavail; total > 0 {
		percent = int((used*100 + total - 1) / total)
	}
	return percent, nil
}
