package v1

import (
	"maps"
	"slices"
	"time"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// DefaultBranch is the branch of signed state of a fleet that names none.
const DefaultBranch = "signed"

// The expiries of a fleet that names none, per TUF role.
const (
	DefaultRootExpiry      = Duration(365 * 24 * time.Hour)
	DefaultTargetsExpiry   = Duration(365 * 24 * time.Hour)
	DefaultTeamExpiry      = Duration(90 * 24 * time.Hour)
	DefaultSnapshotExpiry  = Duration(90 * 24 * time.Hour)
	DefaultTimestampExpiry = Duration(3 * 24 * time.Hour)
)

// WithDefaults returns a copy of f with every optional field filled in: one
// team DefaultTeam with threshold 1, the Default*Expiry, DefaultBranch and
// DefaultInstallRoot. Nothing of f is changed.
func (f Fleet) WithDefaults() Fleet {
	f.Teams = slices.Clone(f.Teams)
	if len(f.Teams) == 0 {
		f.Teams = []Team{{Name: DefaultTeam}}
	}
	for i := range f.Teams {
		if f.Teams[i].Threshold == 0 {
			f.Teams[i].Threshold = 1
		}
	}
	for _, e := range []struct {
		field    *Duration
		fallback Duration
	}{
		{&f.Expiries.Root, DefaultRootExpiry},
		{&f.Expiries.Targets, DefaultTargetsExpiry},
		{&f.Expiries.Team, DefaultTeamExpiry},
		{&f.Expiries.Snapshot, DefaultSnapshotExpiry},
		{&f.Expiries.Timestamp, DefaultTimestampExpiry},
	} {
		if *e.field == 0 {
			*e.field = e.fallback
		}
	}
	if f.Signed.Branch == "" {
		f.Signed.Branch = DefaultBranch
	}
	if f.InstallRoot == "" {
		f.InstallRoot = DefaultInstallRoot
	}
	return f
}

// TeamOf returns the team that owns the node.
func (n Node) TeamOf() string {
	if n.Team == "" {
		return DefaultTeam
	}
	return n.Team
}

// Matches reports whether labels satisfy the selector.
func (s Selector) Matches(labels map[string]string) bool {
	for key, value := range s.MatchLabels {
		if found, ok := labels[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// Validate implements strict's hook.
func (f *Fleet) Validate(c *strict.Context) {
	check(c, "name", names.Label(f.Name))
	check(c, "environment", names.Label(f.Environment))
	if f.InstallRoot != "" {
		check(c, "installRoot", names.AbsolutePath(f.InstallRoot))
	}
	unique(c, "registries", f.Registries, "host", func(r Registry) string { return r.Host })
	unique(c, "teams", f.Teams, "name", func(t Team) string { return t.Name })
}

// Validate implements strict's hook.
func (r Registry) Validate(c *strict.Context) {
	check(c, "host", names.RegistryHost(r.Host))
	if r.PlainHTTP && !names.Loopback(r.Host) {
		c.Errorf("plainHTTP", "is for registries on loopback only; %q needs TLS", r.Host)
	}
}

// Validate implements strict's hook.
func (t Team) Validate(c *strict.Context) {
	check(c, "name", names.Team(t.Name))
	if t.Threshold < 0 || t.Threshold > 100 || t.Threshold == 0 && c.Value("threshold") != nil {
		c.Errorf("threshold", "found %d; allowed is 1 to 100", t.Threshold)
	}
}

// Validate implements strict's hook.
func (e Expiries) Validate(c *strict.Context) {
	const least = Duration(time.Minute)
	for _, f := range []struct {
		name  string
		value Duration
	}{{"root", e.Root}, {"targets", e.Targets}, {"team", e.Team}, {"snapshot", e.Snapshot}, {"timestamp", e.Timestamp}} {
		if c.Value(f.name) != nil && f.value < least {
			c.Errorf(f.name, "found %s; at least %s is needed", f.value, least)
		}
	}
}

// Validate implements strict's hook.
func (s SignedBranch) Validate(c *strict.Context) {
	if s.Branch != "" {
		check(c, "branch", names.Branch(s.Branch))
	}
}

// Validate implements strict's hook.
func (p *PackagePin) Validate(c *strict.Context) {
	check(c, "name", names.Label(p.Name))
	check(c, "ref", names.Repository(p.Ref))
	check(c, "digest", names.Digest(p.Digest))
	for i, platform := range p.Platforms {
		check(c, strict.Index("platforms", i), names.Platform(platform))
	}
	unique(c, "platforms", p.Platforms, "", func(s string) string { return s })
}

// Validate implements strict's hook.
func (p *Profile) Validate(c *strict.Context) {
	check(c, "name", names.Label(p.Name))
	checkLists(c, p.Packages, p.Tasks)
}

// Validate implements strict's hook.
func (s Selector) Validate(c *strict.Context) { checkLabels(c, "matchLabels", s.MatchLabels) }

// Validate implements strict's hook.
func (n *Node) Validate(c *strict.Context) {
	check(c, "id", names.NodeID(n.ID))
	if n.Team != "" {
		check(c, "team", names.Team(n.Team))
	}
	checkLabels(c, "labels", n.Labels)
	checkLists(c, n.Packages, n.Tasks)
}

// checkLists checks the package names and tasks of a profile or node.
func checkLists(c *strict.Context, packages []string, tasks []TaskTemplate) {
	for i, name := range packages {
		check(c, strict.Index("packages", i), names.Label(name))
	}
	unique(c, "packages", packages, "", func(s string) string { return s })
	unique(c, "tasks", tasks, "id", func(t TaskTemplate) string { return t.ID })
	if len(packages) > MaxPackages {
		c.Errorf("packages", "found %d; at most %d are allowed", len(packages), MaxPackages)
	}
	if len(tasks) > MaxTasks {
		c.Errorf("tasks", "found %d; at most %d are allowed", len(tasks), MaxTasks)
	}
}

func checkLabels(c *strict.Context, field string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		at := strict.Key(field, key)
		if err := names.LabelKey(key); err != nil {
			c.Errorf(at, "key of a label: %v", err)
			continue
		}
		check(c, at, names.LabelValue(labels[key]))
	}
}

// unique reports items of a list that share a name; key is the field that holds
// it, or "" where the item is the name.
func unique[T any](c *strict.Context, list string, items []T, key string, name func(T) string) {
	first := make(map[string]int, len(items))
	for i, item := range items {
		at := strict.Index(list, i)
		if key != "" {
			at = strict.Key(at, key)
		}
		if before, ok := first[name(item)]; ok && name(item) != "" {
			c.Errorf(at, "%q is taken by %s", name(item), strict.Index(list, before))
			continue
		}
		first[name(item)] = i
	}
}
