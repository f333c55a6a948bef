// Package config is the host's own configuration of the agent: who this node
// is, where signed state comes from, where things go. It is strict, comes from
// config.yaml and the drop-ins beside it (config.d/*.yaml in name order: maps
// merge, lists and scalars replace), and is overridden by GPUAAS_* environment
// variables and then by flags. Nothing in it comes from the fleet repo.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/guard"
	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// KindAgentConfig is the kind of config.yaml and its drop-ins.
const KindAgentConfig = "AgentConfig"

// maxFile caps each configuration file.
const maxFile = 1 << 20

// Config is everything that the agent is told by its host. Load fills defaults;
// after it every field is usable as it is.
type Config struct {
	v1.TypeMeta `yaml:",inline"`
	// Node is this machine's identity, the id in the fleet repo.
	Node string `yaml:"node,omitempty"`
	// Team is the TUF role that may sign for this node; default v1.DefaultTeam.
	// It is local on purpose: another team's keys can't take the node over.
	Team       string     `yaml:"team,omitempty"`
	Source     Source     `yaml:"source,omitempty"`
	Poll       Poll       `yaml:"poll,omitempty"`
	Registries []Registry `yaml:"registries,omitempty"`
	// RegistryAuthFile is a Docker config.json with credentials, read at each use.
	RegistryAuthFile string `yaml:"registryAuthFile,omitempty"`
	// AllowPrivateRedirects lets registries send the agent to literal private,
	// loopback and link-local addresses. Their own address may always be one.
	AllowPrivateRedirects bool    `yaml:"allowPrivateRedirects,omitempty"`
	Metrics               Metrics `yaml:"metrics,omitempty"`
	Log                   Log     `yaml:"log,omitempty"`
	Paths                 Paths   `yaml:"paths,omitempty"`

	// Scope is system or user; set by the caller of Load, never by a file.
	Scope Scope `yaml:"-"`
	// Guard is guard.yaml over the defaults for Paths.
	Guard guard.Guard `yaml:"-"`
}

// Source is the signed branch.
type Source struct {
	// URL is https://, http://, ssh://, file:// or a path.
	URL string `yaml:"url,omitempty"`
	// Branch defaults to "signed".
	Branch string `yaml:"branch,omitempty"`
	// CAFile holds PEM certificates to trust besides the system's.
	CAFile string `yaml:"caFile,omitempty"`
	// Username and TokenFile are HTTP basic credentials; the file is read at each use.
	Username  string `yaml:"username,omitempty"`
	TokenFile string `yaml:"tokenFile,omitempty"`
	// SSHKeyFile and KnownHostsFile serve ssh:// URLs.
	SSHKeyFile     string `yaml:"sshKeyFile,omitempty"`
	KnownHostsFile string `yaml:"knownHostsFile,omitempty"`
	// Timeout bounds one poll; default 60s.
	Timeout v1.Duration `yaml:"timeout,omitempty"`
	// StaleAfter is how long the source may be unreachable before the node
	// counts as stale; default 1h.
	StaleAfter v1.Duration `yaml:"staleAfter,omitempty"`
}

// Poll is when the agent looks without being woken.
type Poll struct {
	// Interval between polls of the signed branch; default 30s, at least 1s. Up to
	// a tenth is added or taken off at random, so that a fleet doesn't knock in step.
	Interval v1.Duration `yaml:"interval,omitempty"`
	// Scan is the interval of the full look at the host that backs up the
	// events; default 10m.
	Scan v1.Duration `yaml:"scan,omitempty"`
}

// Registry is how to reach one OCI registry.
type Registry struct {
	// Host is "name" or "name:port", as in package references.
	Host string `yaml:"host"`
	// PlainHTTP turns TLS off.
	PlainHTTP bool `yaml:"plainHTTP,omitempty"`
	// CAFile holds PEM certificates to trust besides the system's.
	CAFile string `yaml:"caFile,omitempty"`
}

// Metrics is the Prometheus endpoint.
type Metrics struct {
	// Listen is "host:port"; empty means no endpoint.
	Listen string `yaml:"listen,omitempty"`
}

// Log is how the agent logs.
type Log struct {
	// Level is debug, info, warn or error; default info.
	Level string `yaml:"level,omitempty"`
	// Format is json or text; default: text on a terminal, else json.
	Format string `yaml:"format,omitempty"`
}

// Overrides are what flags set; empty fields set nothing.
type Overrides struct {
	Node, Team, SourceURL, SourceBranch string
}

// Load reads the configuration of the scope. file is config.yaml's path, or ""
// for the scope's default place, where it may be missing. env is os.Getenv or a stand-in. All errors are
// reported at once, those in files with file:line:column.
func Load(scope Scope, file string, env func(string) string, over Overrides) (Config, error) {
	dirs, err := scope.dirs(env)
	if err != nil {
		return Config{}, err
	}
	named := file != ""
	if !named {
		file = filepath.Join(dirs.Config, "config.yaml")
	}
	cfg := Config{Scope: scope}
	if err := cfg.readFiles(file, named); err != nil {
		return Config{}, err
	}
	cfg.override(env, over)
	cfg.fillDefaults(dirs, filepath.Dir(file))
	if err := cfg.check(file); err != nil {
		return Config{}, err
	}
	cfg.Guard, err = loadGuard(scope, cfg.Paths)
	return cfg, err
}

// readFiles reads config.yaml, which must be there if somebody named it, and its drop-ins.
func (c *Config) readFiles(file string, named bool) error {
	dropIns, err := filepath.Glob(filepath.Join(filepath.Dir(file), "config.d", "*.yaml"))
	if err != nil {
		return fmt.Errorf("cannot list drop-ins: %w", err)
	}
	slices.Sort(dropIns)
	for i, name := range append([]string{file}, dropIns...) {
		data, err := readCapped(name)
		if i == 0 && !named && errors.Is(err, fs.ErrNotExist) {
			continue // flags and environment may say everything
		}
		if err != nil {
			return fmt.Errorf("cannot read configuration: %w", err)
		}
		if err := strict.Decode(name, data, c); err != nil {
			return err
		}
	}
	return nil
}

func readCapped(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is %d bytes; a configuration file may have %d", name, info.Size(), maxFile)
	}
	return os.ReadFile(name)
}

// Validate implements the strict decoder's hook.
func (c *Config) Validate(ctx *strict.Context) {
	if c.APIVersion != v1.APIVersion {
		ctx.Errorf("apiVersion", "found %q; allowed: %q", c.APIVersion, v1.APIVersion)
	}
	if c.Kind != KindAgentConfig {
		ctx.Errorf("kind", "found %q; allowed: %q", c.Kind, KindAgentConfig)
	}
	if c.Log.Level != "" && !slices.Contains(logLevels, c.Log.Level) {
		ctx.Errorf("log.level", "found %q; allowed: %s", c.Log.Level, strings.Join(logLevels, ", "))
	}
	if c.Log.Format != "" && !slices.Contains(logFormats, c.Log.Format) {
		ctx.Errorf("log.format", "found %q; allowed: %s", c.Log.Format, strings.Join(logFormats, ", "))
	}
	if c.Poll.Interval != 0 && time.Duration(c.Poll.Interval) < time.Second {
		ctx.Errorf("poll.interval", "found %s; allowed: 1s or longer", time.Duration(c.Poll.Interval))
	}
	if c.Poll.Scan != 0 && time.Duration(c.Poll.Scan) < time.Second {
		ctx.Errorf("poll.scan", "found %s; allowed: 1s or longer", time.Duration(c.Poll.Scan))
	}
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"json", "text"}
)

func (c *Config) override(env func(string) string, over Overrides) {
	set := func(dst *string, values ...string) {
		for _, v := range values {
			if v != "" {
				*dst = v
				return
			}
		}
	}
	set(&c.Node, over.Node, env("GPUAAS_NODE_ID"))
	set(&c.Team, over.Team, env("GPUAAS_TEAM"))
	set(&c.Source.URL, over.SourceURL, env("GPUAAS_SOURCE_URL"))
	set(&c.Source.Branch, over.SourceBranch, env("GPUAAS_SOURCE_BRANCH"))
	set(&c.Metrics.Listen, env("GPUAAS_METRICS_LISTEN"))
	set(&c.Log.Level, env("GPUAAS_LOG_LEVEL"))
	set(&c.Log.Format, env("GPUAAS_LOG_FORMAT"))
}

func (c *Config) fillDefaults(d dirs, configDir string) {
	def := func(dst *string, value string) {
		if *dst == "" {
			*dst = value
		}
	}
	defDuration := func(dst *v1.Duration, value time.Duration) {
		if *dst == 0 {
			*dst = v1.Duration(value)
		}
	}
	def(&c.Team, v1.DefaultTeam)
	def(&c.Source.Branch, "signed")
	def(&c.Log.Level, "info")
	defDuration(&c.Source.Timeout, time.Minute)
	defDuration(&c.Source.StaleAfter, time.Hour)
	defDuration(&c.Poll.Interval, 30*time.Second)
	defDuration(&c.Poll.Scan, 10*time.Minute)
	def(&c.Paths.Config, configDir)
	def(&c.Paths.State, d.State)
	def(&c.Paths.Run, d.Run)
	def(&c.Paths.Packages, d.Packages)
	def(&c.Paths.Units, d.Units)
	if len(c.Paths.Files) == 0 {
		c.Paths.Files = []string{d.Files}
	}
}

// idPattern is that of schema v1: it becomes a path and a TUF target name.
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

func (c *Config) check(file string) error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, fmt.Errorf("no node id: set node in %s, GPUAAS_NODE_ID or --node", file))
	} else if !idPattern.MatchString(c.Node) || strings.Contains(c.Node, "..") {
		errs = append(errs, fmt.Errorf("node id %q: allowed are a-z, 0-9, '.' and '-', at most 63 characters, first a letter or digit", c.Node))
	}
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`).MatchString(c.Team) {
		errs = append(errs, fmt.Errorf("team %q: allowed are a-z, 0-9 and '-', at most 40 characters", c.Team))
	}
	if c.Source.URL == "" {
		errs = append(errs, fmt.Errorf("no source: set source.url in %s, GPUAAS_SOURCE_URL or --source", file))
	}
	for _, p := range c.Paths.all() {
		if !filepath.IsAbs(p) {
			errs = append(errs, fmt.Errorf("path %q is not absolute: paths in %s must be", p, file))
		}
	}
	return errors.Join(errs...)
}

func loadGuard(scope Scope, p Paths) (guard.Guard, error) {
	base := guard.Default(guard.Paths{
		PackageRoot: p.Packages, FileRoots: p.Files, UnitDir: p.Units,
		AgentDirs: []string{p.Config, p.State, p.Run}, UserScope: scope == User,
	})
	name := filepath.Join(p.Config, "guard.yaml")
	data, err := readCapped(name)
	if errors.Is(err, fs.ErrNotExist) {
		return base, nil
	}
	if err != nil {
		return guard.Guard{}, fmt.Errorf("cannot read the guard: %w", err)
	}
	return guard.Decode(name, data, base)
}
