package source_test

import (
	"errors"
	"io"
	"log"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/source"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func TestNewChecksTheConfiguration(t *testing.T) {
	good := source.Config{URL: "https://git.example.com/fleet.git", Branch: "signed", RepoDir: "/x", Wanted: []string{"a"}}
	for name, change := range map[string]func(*source.Config){
		"no url":          func(c *source.Config) { c.URL = "" },
		"relative path":   func(c *source.Config) { c.URL = "some/repo" },
		"scheme":          func(c *source.Config) { c.URL = "git://" + secret + "@h/x" },
		"file with host":  func(c *source.Config) { c.URL = "file://host/x" },
		"no host":         func(c *source.Config) { c.URL = "https:///x" },
		"no path":         func(c *source.Config) { c.URL = "https://host" },
		"can't be parsed": func(c *source.Config) { c.URL = "https://u:" + secret + "@%zz/" },
		"no branch":       func(c *source.Config) { c.Branch = "" },
		"no folder":       func(c *source.Config) { c.RepoDir = "" },
		"nothing wanted":  func(c *source.Config) { c.Wanted = nil },
		"bad pattern":     func(c *source.Config) { c.Wanted = []string{"a/[x"} },
		"ssh without key": func(c *source.Config) { c.URL = "git@host:x.git" },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			_, err := source.New(c)
			var e *host.Error
			if !errors.As(err, &e) || e.Reason != v1.ReasonConfig {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
	for _, url := range []string{good.URL, "/srv/x.git", "file:///srv/x.git", "http://h:8080/x", "ssh://git@h:2222/x", "ssh://h/~me/x", "git@h:x/y.git", "h:/x"} {
		c := good
		c.URL, c.SSHKeyFile, c.KnownHostsFile = url, "/k", "/h"
		if _, err := source.New(c); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestSnapshotIsImmutable(t *testing.T) {
	s := source.NewSnapshot("c", map[string][]byte{"b": []byte("1"), "a": nil})
	data, _ := s.ReadFile("b")
	data[0] = 'x'
	if again, _ := s.ReadFile("b"); string(again) != "1" {
		t.Errorf("a reader changed it to %q", again)
	}
	if _, ok := s.ReadFile("c"); ok {
		t.Error("a file that isn't there was read")
	}
	if _, ok := s.ReadFile("a"); !ok {
		t.Error("an empty file isn't there")
	}
}
