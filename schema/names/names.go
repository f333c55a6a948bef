// Package names is the grammar of every name that crosses the wire: node ids,
// digests, OCI repositories, unit names, paths. Each function returns nil or an
// error that says what was found and what is allowed. All are safe for
// concurrent use.
package names

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Grammar is what one kind of name must look like.
type Grammar struct {
	// Pattern is a regular expression that Go and ECMA-262 read the same way.
	Pattern string
	// Most is the most bytes.
	Most int
	// Allowed says it in words.
	Allowed string
}

// rule is a Grammar that can be checked.
type rule struct {
	pattern *regexp.Regexp
	most    int
	allowed string
}

func (r rule) check(s string) error {
	if len(s) <= r.most && r.pattern.MatchString(s) {
		return nil
	}
	return fmt.Errorf("found %s; allowed is %s", quote(s), r.allowed)
}

func (r rule) grammar() Grammar {
	return Grammar{Pattern: r.pattern.String(), Most: r.most, Allowed: r.allowed}
}

// Grammars returns the grammars by name, for the JSON Schemas. A few functions
// of this package ask for more than a pattern can say.
func Grammars() map[string]Grammar {
	return map[string]Grammar{
		"label": label.grammar(), "team": team.grammar(), "nodeID": nodeID.grammar(), "taskID": taskID.grammar(),
		"digest": digest.grammar(), "commit": commit.grammar(), "platform": platform.grammar(), "mode": mode.grammar(),
		"owner": owner.grammar(), "labelKey": labelKey.grammar(), "labelValue": labelValue.grammar(),
		"valueName": valueName.grammar(), "envName": envName.grammar(), "absolutePath": absolutePath.grammar(),
		"relativePath": relativePath.grammar(), "unit": unit.grammar(), "host": host.grammar(),
		"repository": repository.grammar(), "branch": branch.grammar(), "httpURL": httpURL.grammar(),
		"tcpAddress": tcpAddress.grammar(), "repositoryURL": repositoryURL.grammar(),
	}
}

// quote shows a value, shortened where it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// The parts of an OCI reference, by the grammar of the distribution specification.
const (
	hostText      = `([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?`
	componentText = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
)

var (
	label = rule{regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`), 63,
		"a DNS label: a-z, 0-9 and inner -, at most 63 characters"}
	team = rule{regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`), 40,
		"a-z, 0-9 and inner -, at most 40 characters"}
	nodeID = rule{regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`), 63,
		"a-z or 0-9, then a-z, 0-9, . and -, at most 63 characters, no .."}
	taskID = rule{regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`), 63,
		"a-z, 0-9 and inner . _ -, at most 63 characters"}
	digest = rule{regexp.MustCompile(`^sha256:[0-9a-f]{64}$`), 71,
		"sha256: and 64 digits 0-9a-f"}
	commit = rule{regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`), 64,
		"a full git commit id of 40 or 64 digits 0-9a-f"}
	platform = rule{regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$`), 64,
		"os/architecture, like linux/amd64"}
	mode = rule{regexp.MustCompile(`^0[0-7]{3}$`), 4,
		`four octal digits in quotes that begin with 0, like "0640"`}
	owner = rule{regexp.MustCompile(`^([a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?|0|[1-9][0-9]{0,9})$`), 32,
		"a user or group name, or a decimal id"}
	labelKey = rule{regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$`), 128,
		"letters, digits and inner . _ - /, at most 128 characters"}
	labelValue = rule{regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$`), 63,
		"letters, digits and inner . _ -, at most 63 characters"}
	valueName = rule{regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`), 63,
		"a letter or _, then letters, digits, _ and -, at most 63 characters"}
	envName = rule{regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`), 255,
		"a letter or _, then letters, digits and _, at most 255 characters"}
	absolutePath = rule{regexp.MustCompile(`^(/[A-Za-z0-9._@+:,=~-]+)+$`), 1024,
		"an absolute path without . and .., made of letters, digits and . _ @ + : , = ~ -"}
	relativePath = rule{regexp.MustCompile(`^[A-Za-z0-9._@+:,=~-]+(/[A-Za-z0-9._@+:,=~-]+)*$`), 1024,
		"a relative path without . and .., made of letters, digits and . _ @ + : , = ~ -"}
	unit = rule{regexp.MustCompile(`^[A-Za-z0-9:_\\][A-Za-z0-9:_.\\-]*(@[A-Za-z0-9:_.\\@-]*)?\.(service|timer|socket|target|path)$`), 255,
		"a systemd unit name that ends in .service, .timer, .socket, .target or .path"}
	host = rule{regexp.MustCompile(`^` + hostText + `$`), 255,
		"a host name in lower case with a dot or a port, like registry.example.com or localhost:5000"}
	repository = rule{regexp.MustCompile(`^` + hostText + `(/` + componentText + `)+$`), 255,
		"an OCI repository with its registry, in lower case, without tag or digest, like registry.example.com/team/name"}
	branch = rule{regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`), 200,
		"a branch name made of letters, digits, _ . - and inner /"}
	httpURL = rule{regexp.MustCompile(`^https?://[^\x00-\x20\x7f@#]+$`), 2048,
		"an http or https URL without credentials"}
	tcpAddress = rule{regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$`), 255,
		"host:port, like 127.0.0.1:9100"}
	repositoryURL = rule{regexp.MustCompile(`^[^\x00-\x20\x7f]+$`), 2048,
		"a URL or path without spaces"}
)

// Label checks the name of a fleet, an environment, a package or a profile.
func Label(s string) error { return label.check(s) }

// NodeID checks the identity of a node.
func NodeID(s string) error {
	if strings.Contains(s, "..") {
		return fmt.Errorf("found %s; allowed is %s", quote(s), nodeID.allowed)
	}
	return nodeID.check(s)
}

// tufRoles are taken: a team is a TUF role of its own.
var tufRoles = []string{"root", "targets", "snapshot", "timestamp"}

// Team checks the name of a team.
func Team(s string) error {
	if slices.Contains(tufRoles, s) {
		return fmt.Errorf("found %q, which is a TUF role of its own; choose another name", s)
	}
	return team.check(s)
}

// TaskID checks the id of a task.
func TaskID(s string) error { return taskID.check(s) }

// Digest checks "sha256:<64 hex>".
func Digest(s string) error { return digest.check(s) }

// Commit checks a full git commit id.
func Commit(s string) error { return commit.check(s) }

// Platform checks "os/arch" or "os/arch/variant".
func Platform(s string) error { return platform.check(s) }

// Mode checks permission bits, written like "0640". Set-id and sticky bits can't be written.
func Mode(s string) error { return mode.check(s) }

// Owner checks a user or group, by name or decimal id.
func Owner(s string) error {
	if err := owner.check(s); err != nil {
		return err
	}
	if id, err := strconv.ParseUint(s, 10, 64); err == nil && id >= 1<<32-1 {
		return fmt.Errorf("found %s; the highest id is 4294967294", s)
	}
	return nil
}

// LabelKey checks the key of a node's label.
func LabelKey(s string) error { return labelKey.check(s) }

// LabelValue checks the value of a node's label.
func LabelValue(s string) error { return labelValue.check(s) }

// ValueName checks the x of ${values.x}.
func ValueName(s string) error { return valueName.check(s) }

// EnvName checks the name of an environment variable.
func EnvName(s string) error { return envName.check(s) }

// AbsolutePath checks a path on a node.
func AbsolutePath(s string) error {
	if path.Clean(s) != s || longPart(s) {
		return fmt.Errorf("found %s; allowed is %s", quote(s), absolutePath.allowed)
	}
	return absolutePath.check(s)
}

// RelativePath checks a path inside a package.
func RelativePath(s string) error {
	if path.Clean(s) != s || s == "." || s == ".." || strings.HasPrefix(s, "../") || longPart(s) {
		return fmt.Errorf("found %s; allowed is %s", quote(s), relativePath.allowed)
	}
	return relativePath.check(s)
}

// longPart finds a name that no file system takes.
func longPart(s string) bool {
	return slices.ContainsFunc(strings.Split(s, "/"), func(part string) bool { return len(part) > 255 })
}

// Unit checks the name of a unit file; templates ("x@.service") and instances are allowed.
func Unit(s string) error { return unit.check(s) }

// UnitInstance checks the name of a unit that can be started: a template can't.
func UnitInstance(s string) error {
	if err := Unit(s); err != nil {
		return err
	}
	if strings.Contains(s, "@.") {
		return fmt.Errorf("found template %q; name an instance of it, like %q", s, strings.Replace(s, "@.", "@1.", 1))
	}
	return nil
}

// Branch checks the name of a git branch; a subset of what git takes.
func Branch(s string) error {
	if strings.Contains(s, "..") || strings.HasSuffix(s, ".") || strings.HasSuffix(s, ".lock") || strings.Contains(s, ".lock/") {
		return fmt.Errorf("found %s; allowed is %s", quote(s), branch.allowed)
	}
	return branch.check(s)
}

// RegistryHost checks "name" or "name:port" of an OCI registry.
func RegistryHost(s string) error {
	if err := host.check(s); err != nil {
		return err
	}
	name, port, hasPort := cutPort(s)
	if hasPort {
		if err := portNumber(port); err != nil {
			return fmt.Errorf("found %q: %w", s, err)
		}
	}
	if strings.HasPrefix(name, "[") && net.ParseIP(strings.Trim(name, "[]")) == nil {
		return fmt.Errorf("found %q, whose address is not IPv6", s)
	}
	if !hasPort && name != "localhost" && !strings.Contains(name, ".") && !strings.HasPrefix(name, "[") {
		return fmt.Errorf("found %q; allowed is %s", s, host.allowed)
	}
	return nil
}

// cutPort separates "name:port"; an IPv6 name keeps its brackets.
func cutPort(s string) (name, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func portNumber(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 65535 || s[0] == '0' {
		return errors.New("allowed is a port from 1 to 65535")
	}
	return nil
}

// Loopback reports whether "name" or "name:port" is this machine itself.
func Loopback(hostport string) bool {
	name, _, _ := cutPort(hostport)
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// Repository checks an OCI repository with its registry host and without tag or
// digest, by the grammar of the OCI distribution specification.
func Repository(s string) error {
	registry, rest, _ := strings.Cut(s, "/")
	switch {
	case strings.Contains(s, "@"):
		return fmt.Errorf("found %s; leave the digest out, it has its own field", quote(s))
	case strings.Contains(rest, ":"):
		return fmt.Errorf("found %s; leave the tag out, a package is pinned by its digest", quote(s))
	}
	if err := repository.check(s); err != nil {
		return err
	}
	if RegistryHost(registry) != nil {
		return fmt.Errorf("found %s, which begins with no registry; allowed is %s", quote(s), repository.allowed)
	}
	return nil
}

// HTTPURL checks an http or https URL with a host and without credentials or fragment.
func HTTPURL(s string) error {
	if err := httpURL.check(s); err != nil {
		return err
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return fmt.Errorf("found %s; allowed is %s", quote(s), httpURL.allowed)
	}
	if p := u.Port(); p != "" {
		if err := portNumber(p); err != nil {
			return fmt.Errorf("found %s: %w", quote(s), err)
		}
	}
	return nil
}

// TCPAddress checks "host:port".
func TCPAddress(s string) error {
	if err := tcpAddress.check(s); err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(s); err != nil || portNumber(port) != nil {
		return fmt.Errorf("found %s; allowed is %s", quote(s), tcpAddress.allowed)
	}
	return nil
}

// RepositoryURL checks where a git repository is: any text that git takes, but
// without a password, because it is shown and signed.
func RepositoryURL(s string) error {
	if err := repositoryURL.check(s); err != nil {
		return err
	}
	if u, err := url.Parse(s); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			return fmt.Errorf("the URL holds a password; remove it")
		}
	}
	return nil
}
