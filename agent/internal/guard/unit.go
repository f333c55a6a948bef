package guard

import (
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
	"github.com/gpuaas/node-agent/schema/task"
)

type assignment = unitfile.Assignment

// unitCheck is the judging of one unit file.
type unitCheck struct {
	*checker
	name string
}

// unit judges a unit's content. Every assignment is judged, also those that a
// later one would reset.
func (c *checker) unit(r task.Unit) {
	f, err := unitfile.Parse(r.Content)
	if err != nil {
		c.refuse(RuleSyntax, "%s: %v", r.Name, err)
		return
	}
	u := &unitCheck{checker: c, name: r.Name}
	known, ok := sections[path.Ext(r.Name)]
	if !ok {
		return // the name was refused already
	}
	for _, s := range f.Sections {
		if _, ok := known[s.Name]; !ok {
			c.refuse(RuleSyntax, "%s:%d: section [%s] has no meaning in a %s unit", r.Name, s.Line, s.Name, path.Ext(r.Name))
		}
	}
	for _, a := range f.Assignments {
		if directives, ok := known[a.Section]; ok {
			u.assignment(directives, a)
		}
	}
	u.runsAs(f)
}

func (u *unitCheck) assignment(directives map[string]judge, a assignment) {
	judged, known := directives[a.Key]
	switch {
	case slices.Contains(u.g.ForbiddenDirectives, a.Key):
		u.refuseAt(RuleDirective, a, "this node forbids it")
	case slices.Contains(u.g.AllowedDirectives, a.Key) && !alwaysJudged[a.Key]:
		// The node's root took it on.
	case known:
		judged(u, a)
	case dangerous[a.Key] != "":
		u.refuseAt(RuleDirective, a, "%s; list %s in allowedDirectives of guard.yaml if this node may", dangerous[a.Key], a.Key)
	default:
		u.refuseAt(RuleDirective, a,
			"it is not among the directives that the agent can judge in [%s]; check its spelling, or list it in allowedDirectives of guard.yaml", a.Section)
	}
}

// alwaysJudged can't be allowed wholesale: they are what the guard is for.
var alwaysJudged = set(`User ExecStart ExecStartPre ExecStartPost ExecCondition ExecReload ExecReloadPost ExecStop ExecStopPre ExecStopPost`)

// refuseAt refuses one line of a unit.
func (u *unitCheck) refuseAt(rule Rule, a assignment, format string, args ...any) {
	args = append([]any{u.name, a.Line, a.Key}, args...)
	u.refuse(rule, "%s:%d: %s= is refused: "+format, args...)
}

// plainWords splits a value at white space and refuses what would make systemd
// read other words than these.
func (u *unitCheck) plainWords(rule Rule, a assignment) []string {
	if strings.ContainsAny(a.Value, "\"'\\%") {
		u.refuseAt(rule, a, "quotes, escapes and %% specifiers are not allowed here, found %q", a.Value)
		return nil
	}
	return strings.Fields(a.Value)
}

// pulledIn judges units that start ours, or that ours starts.
func (u *unitCheck) pulledIn(a assignment) {
	for _, name := range u.plainWords(RuleDependency, a) {
		if matches(name, u.g.Dependencies) {
			continue
		}
		if why := u.foreign(name); why != "" {
			u.refuseAt(RuleDependency, a, "%s: %s; units that may be depended on besides are %s",
				name, why, strings.Join(u.g.Dependencies, ", "))
		}
	}
}

// ownUnits judges units that ours starts, stops or names in other ways.
func (u *unitCheck) ownUnits(a assignment) {
	for _, name := range u.plainWords(RuleDependency, a) {
		if why := u.foreign(name); why != "" {
			u.refuseAt(RuleDependency, a, "%s: %s", name, why)
		}
	}
}

// conflicts judges units that ours stops. Every service stops at shutdown.
func (u *unitCheck) conflicts(a assignment) {
	for _, name := range u.plainWords(RuleDependency, a) {
		if why := u.foreign(name); why != "" && name != "shutdown.target" {
			u.refuseAt(RuleDependency, a, "%s: %s", name, why)
		}
	}
}

// aliases judges further names of our unit.
func (u *unitCheck) aliases(a assignment) {
	for _, name := range u.plainWords(RuleUnitName, a) {
		if why := u.foreign(name); why != "" {
			u.refuseAt(RuleUnitName, a, "%s: %s", name, why)
		}
	}
}

func (u *unitCheck) slice(a assignment) {
	for _, name := range u.plainWords(RuleDependency, a) {
		base, isSlice := strings.CutSuffix(name, ".slice")
		if !isSlice || !slices.Contains([]string{"system", "user", "app", "background", "session"}, base) && !matches(base+".service", u.g.UnitNames) {
			u.refuseAt(RuleDependency, a, "%s is another's slice; allowed are system.slice and those named like %s", name, orNone(u.g.UnitNames))
		}
	}
}

// user judges User=.
func (u *unitCheck) user(a assignment) {
	switch {
	case u.g.UserScope:
		u.refuseAt(RuleUser, a, "a user's own manager can run nothing as another user; leave it out")
	case strings.ContainsAny(a.Value, "%\"'\\ \t"):
		u.refuseAt(RuleUser, a, "found %q, allowed is a user's name or number, without specifiers", a.Value)
	case a.Value != "" && len(u.g.Users) > 0 && !slices.Contains(u.g.Users, a.Value):
		u.refuseAt(RuleUser, a, "found %s; this node permits only %s", a.Value, strings.Join(u.g.Users, ", "))
	}
}

// socketUser judges the owner of a socket's node in the file system.
func (u *unitCheck) socketUser(a assignment) { u.user(a) }

// runsAs refuses units that run as root where guard.yaml lists users without it.
func (u *unitCheck) runsAs(f unitfile.File) {
	if u.g.UserScope || len(u.g.Users) == 0 || slices.Contains(u.g.Users, "root") {
		return
	}
	user, dynamic, runs := "", false, false
	for _, a := range f.Assignments {
		if a.Section != "Service" && a.Section != "Socket" {
			continue
		}
		switch {
		case a.Key == "User":
			user = a.Value
		case a.Key == "DynamicUser":
			// Only the usual spelling counts; any other is judged as no.
			dynamic = slices.Contains([]string{"yes", "true", "on", "1"}, a.Value)
		case strings.HasPrefix(a.Key, "Exec"):
			runs = true
		}
	}
	if runs && user == "" && !dynamic {
		u.refuse(RuleUser, "%s: has no User= and would run as root; this node permits only %s", u.name, strings.Join(u.g.Users, ", "))
	}
}

// group judges Group=, SupplementaryGroups= and SocketGroup=.
func (u *unitCheck) group(a assignment) {
	if u.g.UserScope {
		u.refuseAt(RuleUser, a, "a user's own manager can run nothing as another group; leave it out")
		return
	}
	for _, name := range u.plainWords(RuleUser, a) {
		switch {
		case len(u.g.Groups) > 0 && !slices.Contains(u.g.Groups, name):
			u.refuseAt(RuleUser, a, "found %s; this node permits only %s", name, strings.Join(u.g.Groups, ", "))
		case len(u.g.Groups) == 0 && slices.Contains(rootGroups, name):
			u.refuseAt(RuleUser, a, "group %s is as good as root; list the permitted ones in groups of guard.yaml", name)
		}
	}
}
