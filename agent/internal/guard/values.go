package guard

import (
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
)

// environment refuses variables that make any program load other code.
func (u *unitCheck) environment(a assignment) {
	words, err := unitfile.Words(a.Value)
	if err != nil {
		u.refuseAt(RuleSyntax, a, "%v", err)
		return
	}
	for _, w := range words {
		name, _, _ := strings.Cut(w, "=")
		if loaderVariables[name] || strings.Contains(name, "%") {
			u.refuseAt(RuleEnvironment, a, "%s loads code into every program that reads it; link the code into the package instead", name)
		}
	}
}

// environmentFile judges EnvironmentFile=, which systemd reads as root.
func (u *unitCheck) environmentFile(a assignment) {
	if a.Value == "" {
		return
	}
	u.readable(a, strings.TrimPrefix(a.Value, "-"))
}

// credential judges LoadCredential=ID:PATH, which systemd reads as root.
func (u *unitCheck) credential(a assignment) {
	if a.Value == "" {
		return
	}
	_, source, ok := strings.Cut(a.Value, ":")
	if !ok {
		u.refuseAt(RulePath, a, "found %q, allowed is ID:PATH with a path below %s", a.Value, orNone(u.g.FileRoots))
		return
	}
	u.readable(a, source)
}

// readable judges a file that systemd reads for the unit.
func (u *unitCheck) readable(a assignment, p string) {
	switch {
	case strings.ContainsAny(p, "%*?[]\\\"'$ \t"):
		u.refuseAt(RulePath, a, "specifiers, wildcards, quotes and spaces are not allowed, found %q", p)
	case !path.IsAbs(p) || path.Clean(p) != p:
		u.refuseAt(RulePath, a, "%q is not an absolute, clean path", p)
	case u.inPackage(p) == "":
		return
	default:
		if why := u.filePath(p); why != "" {
			u.refuseAt(RulePath, a, "%s: %s, and packages of this manifest", p, why)
		}
	}
}

// inPackage says why p is not a file of an active package of this manifest, or "".
func (c *checker) inPackage(p string) string {
	for _, root := range c.g.InstallRoots {
		if !below(p, root) {
			continue
		}
		parts := strings.SplitN(strings.TrimPrefix(p, strings.TrimSuffix(root, "/")+"/"), "/", 3)
		switch {
		case len(parts) < 3 || parts[1] != "current":
			return "paths of packages begin with " + root + "/<name>/current/"
		case !c.packages[parts[0]]:
			return "package " + parts[0] + " is not among the packages of this manifest"
		}
		return ""
	}
	return "it is not below " + orNone(c.g.InstallRoots)
}

// standardStream judges StandardInput= and its like: files would be opened as root.
func (u *unitCheck) standardStream(a assignment) {
	allowed := []string{"", "null", "journal", "inherit", "socket", "data"}
	if !slices.Contains(allowed, a.Value) {
		u.refuseAt(RulePath, a, "found %q, allowed are %s", a.Value, strings.Join(allowed[1:], ", "))
	}
}

// directories judges StateDirectory= and its like: systemd makes these folders
// and gives them, with all that is in them, to the service's user.
func (u *unitCheck) directories(a assignment) {
	for _, dir := range u.plainWords(RulePath, a) {
		first, _, _ := strings.Cut(dir, "/")
		unit := first + ".service"
		switch {
		case strings.Contains(dir, ":") || path.IsAbs(dir) || path.Clean(dir) != dir || strings.HasPrefix(dir, ".."):
			u.refuseAt(RulePath, a, "found %q, allowed is a clean relative path without a symlink's name", dir)
		case !matches(unit, u.g.UnitNames) || matches(unit, u.g.ProtectedUnits):
			u.refuseAt(RulePath, a, "%s may be another's folder; the first part must be a name like %s", dir, orNone(u.g.UnitNames))
		}
	}
}

// runtimePath judges PIDFile=, which systemd reads and removes.
func (u *unitCheck) runtimePath(a assignment) {
	if a.Value == "" {
		return
	}
	// A relative one is below /run.
	p := a.Value
	if !path.IsAbs(p) && !strings.HasPrefix(p, "%") {
		p = "/run/" + p
	}
	u.nodeInRun(a, p)
}

// nodeInRun judges a path at which a unit makes something while it runs: below
// a folder of /run that is named like our units.
func (u *unitCheck) nodeInRun(a assignment, p string) {
	// %t is /run, or the user's own in a user's manager.
	if rest, ok := strings.CutPrefix(p, "%t/"); ok {
		p = "/run/" + rest
	}
	rest, inRun := strings.CutPrefix(p, "/run/")
	first, _, deeper := strings.Cut(rest, "/")
	unit := first + ".service"
	if strings.ContainsAny(p, "%\"'\\ \t") || path.Clean(p) != p || !inRun || !deeper ||
		!matches(unit, u.g.UnitNames) || matches(unit, u.g.ProtectedUnits) || u.protected(p) != "" {
		u.refuseAt(RulePath, a, "found %s, allowed are paths /run/<name>/... where the name is like %s", a.Value, orNone(u.g.UnitNames))
	}
}

// listen judges where a socket is made: the network, an abstract name, or a path.
func (u *unitCheck) listen(a assignment) {
	switch {
	case path.IsAbs(a.Value) || strings.HasPrefix(a.Value, "%t/"):
		u.nodeInRun(a, a.Value)
	case strings.Contains(a.Value, "%"):
		u.refuseAt(RulePath, a, "specifiers other than a leading %%t/ are not allowed, found %q", a.Value)
	}
}
