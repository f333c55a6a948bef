package harness

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// GitRepo is a bare repository, handled by git itself.
type GitRepo struct {
	Dir string
}

// gitEnv keeps the configuration of whoever runs the tests out of them.
func gitEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.com",
	}
}

// NewGitRepo makes a bare repository for one test. A relative dir is one below
// the test's temporary folder.
func NewGitRepo(tb testing.TB, dir string) *GitRepo {
	tb.Helper()
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(tb.TempDir(), dir)
	}
	repo, err := CreateGitRepo(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return repo
}

// CreateGitRepo makes a bare repository at dir that may be pushed to and that
// serves filtered fetches, as the forges do. Its first branch is main.
func CreateGitRepo(dir string) (*GitRepo, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &GitRepo{Dir: dir}
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main"},
		{"config", "http.receivepack", "true"},
		{"config", "uploadpack.allowFilter", "true"},
	} {
		if _, err := r.Git(args...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Git runs "git args..." in the repository and returns what it printed,
// without the last newline.
func (r *GitRepo) Git(args ...string) (string, error) { return r.git(nil, args...) }

// MustGit is Git for tests that can't go on without.
func (r *GitRepo) MustGit(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := r.Git(args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func (r *GitRepo) git(stdin io.Reader, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.Dir, gitEnv(r.Dir), stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// GitCommit is a commit to make.
type GitCommit struct {
	// Branch is its short name.
	Branch string
	// Files are written; a nil value removes the path.
	Files map[string][]byte
	// Orphan starts the branch anew: no parent, nothing but Files.
	Orphan bool
	// Message is optional.
	Message string
}

// Commit makes a commit and returns its hash.
func (r *GitRepo) Commit(c GitCommit) (string, error) {
	return r.fastImport(c, func(w io.Writer) error {
		for _, path := range slices.Sorted(maps.Keys(c.Files)) {
			if err := importFile(w, path, c.Files[path]); err != nil {
				return err
			}
		}
		return nil
	})
}

// MustCommit is Commit for tests.
func (r *GitRepo) MustCommit(tb testing.TB, c GitCommit) string {
	tb.Helper()
	hash, err := r.Commit(c)
	if err != nil {
		tb.Fatal(err)
	}
	return hash
}

// fastImport makes one commit of the file changes that write puts out.
func (r *GitRepo) fastImport(c GitCommit, write func(io.Writer) error) (string, error) {
	ref := "refs/heads/" + c.Branch
	_, missing := r.Git("rev-parse", "--verify", "--quiet", ref)
	message := c.Message
	if message == "" {
		message = "change " + c.Branch
	}
	reader, writer := io.Pipe()
	go func() {
		_, err := fmt.Fprintf(writer, "feature done\ncommit %s\ncommitter Test <test@example.com> now\ndata %d\n%s\n", ref, len(message), message)
		if err == nil && !c.Orphan && missing == nil {
			_, err = fmt.Fprintf(writer, "from %s^0\n", ref)
		}
		if err == nil {
			err = write(writer)
		}
		if err == nil {
			_, err = fmt.Fprintln(writer, "\ndone")
		}
		writer.CloseWithError(err)
	}()
	_, err := r.git(reader, "fast-import", "--quiet", "--force", "--date-format=now")
	// Unblocks the writer where git ended early.
	_ = reader.Close()
	if err != nil {
		return "", err
	}
	return r.Git("rev-parse", "--verify", ref)
}

func importFile(w io.Writer, path string, data []byte) error {
	if data == nil {
		_, err := fmt.Fprintf(w, "D %s\n", path)
		return err
	}
	_, err := fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", path, len(data), data)
	return err
}
