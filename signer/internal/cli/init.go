package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	template "github.com/gpuaas/node-agent/fleet-repo-template"
	"github.com/gpuaas/node-agent/internal/buildinfo"
	"github.com/gpuaas/node-agent/internal/durable"
	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/signer/internal/sign"
	"github.com/gpuaas/node-agent/signer/internal/worktree"
)

type initOptions struct {
	dir, keys      string
	template       template.Options
	user           bool
	passphraseFile string
	noPassphrase   bool
	// rootThreshold of rootKeys keys must sign the root role.
	rootKeys, rootThreshold int
}

func newInit(o *options) *cobra.Command {
	var opts initOptions
	c := &cobra.Command{
		Use:   "init DIR --keys KEYDIR",
		Short: "Make a new fleet repo and its keys",
		Long: `Make a new fleet repo from the template, with a first commit on main and a first signed
state, which has no nodes yet, on the local branch signed; and its keys in KEYDIR: one a role,
and three for root, two of which must sign. trust/root.json is what the nodes will believe. DIR and KEYDIR must be
new or empty, and KEYDIR outside of DIR. When something fails nothing is left.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opts.dir = args[0]
			if opts.rootKeys == 1 && !c.Flags().Changed("root-threshold") {
				opts.rootThreshold = 1
			}
			return runInit(o, opts)
		},
	}
	f := c.Flags()
	f.StringVar(&opts.keys, "keys", "", "folder for the private keys")
	f.StringVar(&opts.template.Name, "name", "", "name of the fleet (default: that of DIR)")
	f.StringVar(&opts.template.Environment, "environment", "", "environment of the fleet (default: staging)")
	f.StringVar(&opts.template.Registry, "registry", "", "registry of the packages, host[:port][/path] (default: registry.example.com/gpuaas)")
	f.StringVar(&opts.template.Etc, "etc", "", "folder on the nodes for environment files (default: /etc/gpuaas)")
	f.StringVar(&opts.template.InstallRoot, "install-root", "", "folder on the nodes for packages (default: "+v1.DefaultInstallRoot+")")
	f.BoolVar(&opts.user, "user", false, "for an agent of this user that runs with --user: its XDG folders, no users for services")
	f.StringVar(&opts.passphraseFile, "passphrase-file", "", "file with the passphrase to encrypt the keys with (default: ask)")
	f.BoolVar(&opts.noPassphrase, "no-passphrase", false, "leave the keys unencrypted")
	f.IntVar(&opts.rootKeys, "root-keys", 3, "how many root keys to make")
	f.IntVar(&opts.rootThreshold, "root-threshold", 2, "how many of the root keys must sign; 1 with one key")
	_ = c.MarkFlagRequired("keys")
	c.MarkFlagsMutuallyExclusive("passphrase-file", "no-passphrase")
	return c
}

const maxRootKeys = 9

func runInit(o *options, opts initOptions) (err error) {
	if opts.rootKeys < 1 || opts.rootKeys > maxRootKeys || opts.rootThreshold < 1 || opts.rootThreshold > opts.rootKeys {
		return exitcode.UsageError(fmt.Errorf("--root-threshold %d of --root-keys %d: allowed are 1 to %d keys, and a threshold from 1 to their number",
			opts.rootThreshold, opts.rootKeys, maxRootKeys))
	}
	dir, keyDir := o.path(opts.dir), o.path(opts.keys)
	if err := checkInitFolders(dir, keyDir); err != nil {
		return err
	}
	files, err := templateFiles(o, dir, opts)
	if err != nil {
		return err
	}
	passphrase, err := initPassphrase(o, opts)
	if err != nil {
		return err
	}
	// Everything is made beside its place, and moved there when it is complete.
	var made scaffold
	defer func() { err = errors.Join(err, made.clear(err != nil)) }()
	newDir, err := made.besides(dir)
	if err != nil {
		return err
	}
	newKeys, err := made.besides(keyDir)
	if err != nil {
		return err
	}
	signers, err := makeKeys(newKeys, passphrase, opts.rootKeys)
	if err != nil {
		return err
	}
	if err := makeRepo(o, newDir, files, signers, opts.rootThreshold); err != nil {
		return err
	}
	if err := os.Chmod(newDir, 0o755); err != nil {
		return fmt.Errorf("cannot make the fleet repo: %w", err)
	}
	if err := moveInto(newKeys, keyDir); err != nil {
		return err
	}
	if err := moveInto(newDir, dir); err != nil {
		return errors.Join(err, os.RemoveAll(keyDir))
	}
	o.say("made the fleet repo %s, with a first commit on main and the branch signed", opts.dir)
	o.say("made the keys %s: move those of root, each to a place of its own, and targets.key, see README.md of the fleet repo", opts.keys)
	if opts.noPassphrase {
		o.say("warning: the keys have no passphrase; whoever reads the files can sign")
	}
	return nil
}

// checkInitFolders refuses folders that init would have to mix its files into.
func checkInitFolders(dir, keyDir string) error {
	for _, f := range []struct{ what, path string }{{"the fleet repo", dir}, {"the keys", keyDir}} {
		empty, err := emptyFolder(f.path)
		if err != nil {
			return fmt.Errorf("cannot make %s: %w", f.what, err)
		}
		if !empty {
			return fmt.Errorf("cannot make %s in %s: it is not empty; name a new folder", f.what, f.path)
		}
	}
	realDir, err := realPath(dir)
	if err != nil {
		return fmt.Errorf("cannot make the fleet repo: %w", err)
	}
	realKeys, err := realPath(keyDir)
	if err != nil {
		return fmt.Errorf("cannot make the keys: %w", err)
	}
	inside := func(a, b string) bool { return a == b || strings.HasPrefix(a, b+string(filepath.Separator)) }
	if inside(realKeys, realDir) || inside(realDir, realKeys) {
		return exitcode.UsageError(fmt.Errorf("--keys %s and the fleet repo %s must not be inside one another: keys never belong into a repository", keyDir, dir))
	}
	return nil
}

var release = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`)

func templateFiles(o *options, dir string, opts initOptions) (map[string][]byte, error) {
	t := opts.template
	if t.Name == "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("cannot name the fleet: %w", err)
		}
		t.Name = strings.ToLower(filepath.Base(abs))
		if names.Label(t.Name) != nil {
			return nil, exitcode.UsageError(fmt.Errorf("%q can't be the fleet's name: give one with --name", t.Name))
		}
	}
	// What is between two releases can't be installed by its version.
	if v := buildinfo.Version(); release.MatchString(v) {
		t.SignerVersion = v
	}
	if opts.user {
		t.User = true
		home := o.env("HOME")
		t.Etc = cmp.Or(t.Etc, filepath.Join(cmp.Or(o.env("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "gpuaas"))
		t.InstallRoot = cmp.Or(t.InstallRoot, filepath.Join(cmp.Or(o.env("XDG_DATA_HOME"), filepath.Join(home, ".local", "share")), "gpuaas", "packages"))
	}
	files, err := template.Files(t)
	if err != nil {
		return nil, exitcode.UsageError(err)
	}
	return files, nil
}

func initPassphrase(o *options, opts initOptions) ([]byte, error) {
	switch {
	case opts.noPassphrase:
		return nil, nil
	case opts.passphraseFile != "":
		return passphraseFile(o.path(opts.passphraseFile))
	}
	const instead = "give --passphrase-file, or --no-passphrase if you mean it"
	first, err := o.ask("Passphrase for the new keys: ", "a passphrase", instead)
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, exitcode.UsageError(errors.New("the passphrase is empty; give --no-passphrase if you mean it"))
	}
	second, err := o.ask("Once more: ", "a passphrase", instead)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passphrases differ; run init again")
	}
	return first, nil
}

// scaffold is what init makes on the way.
type scaffold struct {
	temps   []string
	parents []string
}

// besides makes a temporary folder beside path, with path's parents.
func (s *scaffold) besides(path string) (string, error) {
	parent := filepath.Dir(filepath.Clean(path))
	for p := parent; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == filepath.Dir(p) {
			break
		}
		s.parents = append(s.parents, p)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("cannot make %s: %w", path, err)
	}
	tmp, err := os.MkdirTemp(parent, durable.TempPrefix)
	if err != nil {
		return "", fmt.Errorf("cannot make %s: %w", path, err)
	}
	s.temps = append(s.temps, tmp)
	return tmp, nil
}

// clear removes the temporary folders and, when init failed, the parents it made.
func (s *scaffold) clear(failed bool) error {
	var errs []error
	for _, t := range s.temps {
		errs = append(errs, os.RemoveAll(t))
	}
	if failed {
		for _, p := range s.parents {
			_ = os.Remove(p) // succeeds on an empty folder only
		}
	}
	return errors.Join(errs...)
}

// moveInto moves a finished folder to its place, which is empty or not there.
func moveInto(tmp, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("cannot make %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(path)))
}

// makeKeys makes a key for every role, and several for root: root-1.key, root-2.key, ...
func makeKeys(dir string, passphrase []byte, rootKeys int) (keys.Signers, error) {
	set := keys.Set{Dir: dir, Passphrase: func(string) ([]byte, error) { return passphrase, nil }}
	others := []string{"targets", "snapshot", "timestamp", v1.DefaultTeam}
	roots := []string{"root"}
	if rootKeys > 1 {
		roots = nil
		for i := range rootKeys {
			roots = append(roots, fmt.Sprintf("root-%d", i+1))
		}
	}
	if err := set.Generate(slices.Concat(roots, others), passphrase); err != nil {
		return nil, err
	}
	if rootKeys > 1 {
		if err := set.List("root", roots); err != nil {
			return nil, err
		}
	}
	return set.Load(append(others, "root")...)
}

// makeRepo makes the repository with its two branches.
func makeRepo(o *options, dir string, files map[string][]byte, signers keys.Signers, rootThreshold int) error {
	now := o.now()
	fleet, err := v1.DecodeFleet("fleet.yaml", files["fleet.yaml"])
	if err != nil {
		return err
	}
	fleet = fleet.WithDefaults()
	first := sign.DefaultInit(signers, now, fleet.Expiries)
	first.Root.Threshold = rootThreshold
	signed, err := sign.Init(first)
	if err != nil {
		return err
	}
	root := signed[trust.MetadataPath("root")]
	if _, err := trust.VerifyAll(root, signed, trust.AllOptions{Now: now}); err != nil {
		return fmt.Errorf("cannot make the first signed state: %w", err)
	}
	files[rootFile] = root
	author := o.author()
	if err := worktree.Create(dir, files, "Begin the fleet repo", worktree.Author(author), now); err != nil {
		return err
	}
	git, err := publish.Open(dir)
	if err != nil {
		return err
	}
	commit, err := git.Commit(publish.Change{
		Files: signed, Message: "Begin: no node has a manifest yet\n", Author: author, When: now,
	})
	if err != nil {
		return err
	}
	return git.SetBranch(fleet.Signed.Branch, commit, "")
}

// author is who makes commits: git's environment, git's configuration, or the
// tool. What counts is who signed, which the metadata says.
func (o *options) author() publish.Author {
	configured := worktree.ConfiguredAuthor()
	return publish.Author{
		Name:  cmp.Or(o.env("GIT_AUTHOR_NAME"), configured.Name, "gpuaas-signer"),
		Email: cmp.Or(o.env("GIT_AUTHOR_EMAIL"), configured.Email, "gpuaas-signer@localhost"),
	}
}

// keySet is a folder of keys. Passphrases come from a file or a terminal; PINs are asked for.
func (o *options) keySet(dir, file string) (keys.Set, error) {
	// Not only when a key is needed: a pipeline with a wrong folder would be found out late.
	if _, err := os.Stat(o.path(dir)); err != nil {
		return keys.Set{}, fmt.Errorf("cannot use the keys of --keys: %w", err)
	}
	set := keys.Set{Dir: o.path(dir), Env: o.env, PIN: func(uri string) ([]byte, error) {
		return o.askPIN(fmt.Sprintf("PIN of %s: ", uri))
	}}
	if file != "" {
		passphrase, err := passphraseFile(o.path(file))
		if err != nil {
			return keys.Set{}, err
		}
		set.Passphrase = func(string) ([]byte, error) { return passphrase, nil }
		return set, nil
	}
	set.Passphrase = func(path string) ([]byte, error) {
		return o.askPassphrase(fmt.Sprintf("Passphrase of %s: ", path))
	}
	return set, nil
}
