package guard

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/task"
)

// Violation is one thing that the node doesn't permit.
type Violation struct {
	// Ref is the resource's, Task the id of the task that declares it.
	Ref, Task string
	// Rule is the name of what was broken, from a closed set.
	Rule Rule
	// Message says what is refused, why, and what is allowed.
	Message string
}

// Rule is a name of one of the guard's rules.
type Rule string

// The rules.
const (
	RulePath        Rule = "path"        // a file outside its roots, or protected
	RuleMode        Rule = "mode"        // a file's mode
	RuleUnitName    Rule = "unit-name"   // a unit that isn't permitted, or protected
	RuleRegistry    Rule = "registry"    // a package from elsewhere
	RuleSyntax      Rule = "syntax"      // a unit file that can't be judged
	RuleDirective   Rule = "directive"   // a unit directive that isn't permitted
	RuleExec        Rule = "exec"        // something else than a package's program
	RuleUser        Rule = "user"        // a user or group
	RuleDependency  Rule = "dependency"  // another unit that is pulled in, stopped or hooked into
	RuleEnvironment Rule = "environment" // variables that load code
)

// Check returns what g refuses of a manifest's resources, sorted, and nil when all is
// permitted. A unit whose content isn't known yet is judged by its name: check
// again when it is.
func Check(g Guard, resources []task.Resource) []Violation {
	c := &checker{g: g, packages: map[string]bool{}}
	for _, r := range resources {
		if p, ok := r.(task.Package); ok && p.Activate {
			c.packages[p.Name] = true
		}
	}
	for _, r := range resources {
		c.ref, c.task = r.Ref(), r.Task()
		switch r := r.(type) {
		case task.Package:
			c.pkg(r)
		case task.File:
			c.file(r)
		case task.Unit:
			c.unitName(r.Name)
			if r.Content != nil || r.Package == "" {
				c.unit(r)
			}
		case task.Service:
			c.unitName(r.Unit)
		}
	}
	slices.SortStableFunc(c.violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Task, b.Task))
	})
	return c.violations
}

// checker collects violations of one resource after the other.
type checker struct {
	g          Guard
	packages   map[string]bool // those of the manifest that are active
	ref, task  string
	violations []Violation
}

func (c *checker) refuse(rule Rule, format string, args ...any) {
	c.violations = append(c.violations, Violation{Ref: c.ref, Task: c.task, Rule: rule, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) pkg(p task.Package) {
	if len(c.g.Registries) == 0 {
		return
	}
	for _, allowed := range c.g.Registries {
		if strings.HasPrefix(p.Repository, allowed+"/") || p.Repository == allowed && strings.Contains(allowed, "/") {
			return
		}
	}
	c.refuse(RuleRegistry, "package %s comes from %s; this node permits only %s",
		p.Name, p.Repository, strings.Join(c.g.Registries, ", "))
}

func (c *checker) file(f task.File) {
	if why := c.filePath(f.Path); why != "" {
		c.refuse(RulePath, "cannot write %s: %s", f.Path, why)
	}
	if extra := f.Mode &^ 0o777; extra != 0 {
		c.refuse(RuleMode, "cannot give %s the mode %v: only the permissions of owner, group and others are allowed, no set-id or sticky bits", f.Path, f.Mode)
	}
	if f.Mode&0o002 != 0 {
		c.refuse(RuleMode, "cannot give %s the mode %04o: everybody could write it; take the last write bit away", f.Path, f.Mode.Perm())
	}
	for line := range strings.SplitSeq(string(f.Content), "\n") {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), "="); ok && loaderVariables[name] {
			c.refuse(RuleEnvironment, "%s sets %s, which loads code into every program that reads it; link the code into the package instead", f.Path, name)
		}
	}
}

// filePath says why a file can't lie at p, or "".
func (c *checker) filePath(p string) string {
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsRune(p, 0):
		return "the path is not absolute and clean (no .., //, or / at the end)"
	case !belowAny(p, c.g.FileRoots):
		return "files may lie only below " + orNone(c.g.FileRoots)
	}
	return c.protected(p)
}

// protected says why nothing may be done at p, or "". A path above a protected one
// is fine: what is written there is one file.
func (c *checker) protected(p string) string {
	for _, own := range c.g.ProtectedPaths {
		if p == own || below(p, own) {
			return own + " is protected on this node"
		}
	}
	return ""
}

// below reports whether p lies strictly below root. Both are clean.
func below(p, root string) bool {
	return root != "" && strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/") && p != root
}

func belowAny(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return below(p, root) })
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// unitName judges the name of a unit that a task installs or controls.
func (c *checker) unitName(name string) {
	if why := c.foreign(name); why != "" {
		c.refuse(RuleUnitName, "cannot touch the unit %s: %s", name, why)
	}
}

// unitSuffixes are the kinds of unit that tasks may have.
var unitSuffixes = []string{".service", ".timer", ".socket", ".target", ".path"}

// foreign says why a unit is not one of those that tasks may have, or "".
func (c *checker) foreign(name string) string {
	switch {
	case name == "" || len(name) > 255 || strings.Trim(name, nameChars) != "":
		return "not the name of a unit: letters, digits and _ . : @ - are allowed"
	case !slices.Contains(unitSuffixes, path.Ext(name)):
		return "the kinds of unit that are allowed are " + strings.Join(unitSuffixes, " ")
	case matches(name, c.g.ProtectedUnits):
		return "it is protected on this node"
	case !matches(name, c.g.UnitNames):
		return "this node permits only " + orNone(c.g.UnitNames)
	}
	return ""
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:@-"

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}
