package publish_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/test/harness"
)

const secret = "s3cret-t0ken"

// guarded serves a repository that asks for credentials.
func guarded(t *testing.T) (*harness.GitServer, *harness.GitRepo) {
	t.Helper()
	ownGit(t)
	server := harness.NewGitServer(t, harness.GitServerOptions{User: "git", Password: secret})
	return server, harness.NewGitRepo(t, filepath.Join(server.Root, "remote.git"))
}

func tryPush(t *testing.T, r *publish.Repository) error {
	t.Helper()
	if _, err := r.Fetch(t.Context(), "origin", "signed"); err != nil {
		return err
	}
	return r.Push(t.Context(), "origin", "signed", commit(t, r, change("", map[string]string{"a": "1"})), "")
}

func TestCredentials(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("git:" + secret))
	for name, prepare := range map[string]func(t *testing.T, server *harness.GitServer, repo *harness.GitRepo){
		"token file": func(t *testing.T, _ *harness.GitServer, _ *harness.GitRepo) {
			path := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(publish.TokenFileEnv, path)
		},
		"url": func(t *testing.T, server *harness.GitServer, repo *harness.GitRepo) {
			repo.MustGit(t, "remote", "set-url", "origin", strings.Replace(server.URL, "://", "://git:"+secret+"@", 1)+"/remote.git")
		},
		"extra header": func(t *testing.T, server *harness.GitServer, repo *harness.GitRepo) {
			repo.MustGit(t, "config", "http."+server.URL+"/.extraheader", "AUTHORIZATION: basic "+basic)
		},
		"credential helper": func(t *testing.T, _ *harness.GitServer, repo *harness.GitRepo) {
			repo.MustGit(t, "config", "credential.helper", "!f() { echo username=git; echo password="+secret+"; }; f")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, remote := guarded(t)
			r, repo := clone(t, server.URL+"/remote.git")
			err := tryPush(t, r)
			if err == nil || !strings.Contains(err.Error(), publish.TokenFileEnv) {
				t.Fatalf("without credentials: %v", err)
			}
			prepare(t, server, repo)
			if err := tryPush(t, open(t, repo.Dir)); err != nil {
				t.Fatal(err)
			}
			remote.MustGit(t, "rev-parse", "--verify", "refs/heads/signed")
		})
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	server, _ := guarded(t)
	r, repo := clone(t, strings.Replace(server.URL, "://", "://"+secret+":"+secret+"x@", 1)+"/remote.git")
	errs := []error{tryPush(t, r)}
	shown, err := r.RemoteURL("origin")
	if err != nil || shown != server.URL+"/remote.git" {
		t.Errorf("the remote is shown as %s, %v", shown, err)
	}
	for _, url := range []string{"http://someone:" + secret + "@127.0.0.1:1/x.git", "nonsense://a:" + secret + "@b", "http://a:" + secret + "@%zz/"} {
		repo.MustGit(t, "remote", "set-url", "origin", url)
		errs = append(errs, tryPush(t, open(t, repo.Dir)))
	}
	for _, err := range errs {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("error: %v", err)
		}
	}
}

func TestUnknownRemote(t *testing.T) {
	ownGit(t)
	r := open(t, harness.NewGitRepo(t, "r.git").Dir)
	if _, err := r.Fetch(t.Context(), "upstream", "signed"); err == nil || !strings.Contains(err.Error(), "git remote add upstream") {
		t.Errorf("error: %v", err)
	}
	if _, err := publish.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "git init") {
		t.Errorf("error: %v", err)
	}
}

func TestDeclinedByAHook(t *testing.T) {
	remotes(t, func(t *testing.T, remote *harness.GitRepo, url string) {
		hook := filepath.Join(remote.Dir, "hooks", "pre-receive")
		if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hook, []byte("#!/bin/sh\necho 'the branch is frozen' >&2\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		r, _ := clone(t, url)
		if err := tryPush(t, r); err == nil || !strings.Contains(err.Error(), "the branch is frozen") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestRelativeRemote(t *testing.T) {
	ownGit(t)
	dir := t.TempDir()
	remote := harness.NewGitRepo(t, filepath.Join(dir, "remote.git"))
	local := harness.NewGitRepo(t, filepath.Join(dir, "local.git"))
	local.MustGit(t, "remote", "add", "origin", "../remote.git")
	if err := tryPush(t, open(t, local.Dir)); err != nil {
		t.Fatal(err)
	}
	remote.MustGit(t, "rev-parse", "--verify", "refs/heads/signed")
}
