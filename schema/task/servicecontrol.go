package task

import (
	"strings"
	"time"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// ServiceControl is runtime.service_control: the state that a unit is held in, or
// one restart or reload, which runs exactly once for the task's id.
type ServiceControl struct {
	// Unit is the unit's name; an instance, not a template.
	Unit string `yaml:"unit" json:"unit"`
	// State to hold: running or stopped. Either this or action.
	State State `yaml:"state,omitempty" json:"state,omitempty"`
	// Action to run once: restart or reload. Either this or state.
	Action Action `yaml:"action,omitempty" json:"action,omitempty"`
	// Enabled says whether the unit starts at boot; left out, the agent leaves it alone.
	Enabled *bool `yaml:"enabled,omitempty" json:"enabled,omitempty"`
	// RestartOn names what restarts the unit when it changes: ids of tasks that
	// write files or units, and package/<name>.
	RestartOn []string `yaml:"restartOn,omitempty" json:"restartOn,omitempty"`
	// Health says when the unit counts as good after a change.
	Health *HealthCheck `yaml:"health,omitempty" json:"health,omitempty"`
}

// HealthCheck is the "health" of a service.
type HealthCheck struct {
	// StableFor is how long unit and checks must hold without a break; default 5s.
	StableFor Duration `yaml:"stableFor,omitempty" json:"stableFor,omitempty"`
	// Timeout bounds the whole probation; default 60s, at most 1h.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// HTTP is a URL that must answer 2xx.
	HTTP *HTTPCheck `yaml:"http,omitempty" json:"http,omitempty"`
	// TCP is an address that must accept a connection.
	TCP *TCPCheck `yaml:"tcp,omitempty" json:"tcp,omitempty"`
}

// HTTPCheck is fetched with GET.
type HTTPCheck struct {
	// URL is http or https.
	URL string `yaml:"url" json:"url"`
}

// TCPCheck is connected to.
type TCPCheck struct {
	// Address is host:port.
	Address string `yaml:"address" json:"address"`
}

// What a HealthCheck means where it leaves something out, and its bound.
const (
	DefaultStableFor = Duration(5 * time.Second)
	DefaultTimeout   = Duration(60 * time.Second)
	MaxTimeout       = Duration(time.Hour)
)

// Type implements Spec.
func (ServiceControl) Type() string { return "runtime.service_control" }

// Resources implements Spec.
func (s ServiceControl) Resources(id string) []Resource {
	service := Service{
		Unit: s.Unit, State: s.State, Enabled: s.Enabled, Action: s.Action,
		RestartOn: append([]string(nil), s.RestartOn...), Source: id,
	}
	if s.Health != nil {
		service.Health = s.Health.resolved()
	}
	return []Resource{service}
}

// resolved fills the defaults in.
func (h HealthCheck) resolved() *Health {
	out := &Health{StableFor: time.Duration(h.stableFor()), Timeout: time.Duration(h.timeout())}
	if h.HTTP != nil {
		out.HTTPURL = h.HTTP.URL
	}
	if h.TCP != nil {
		out.TCPAddress = h.TCP.Address
	}
	return out
}

func (h HealthCheck) stableFor() Duration {
	if h.StableFor == 0 {
		return DefaultStableFor
	}
	return h.StableFor
}

func (h HealthCheck) timeout() Duration {
	if h.Timeout == 0 {
		return DefaultTimeout
	}
	return h.Timeout
}

// Validate implements strict's hook.
func (s ServiceControl) Validate(c *strict.Context) {
	check(c, "unit", names.UnitInstance(s.Unit))
	if (s.State == "") == (s.Action == "") {
		c.Errorf("", "needs exactly one of state and action")
	}
	if s.State != "" && s.State != Running && s.State != Stopped {
		c.Errorf("state", "found %q; allowed are running, stopped", s.State)
	}
	if s.Action != "" && s.Action != Restart && s.Action != Reload {
		c.Errorf("action", "found %q; allowed are restart, reload", s.Action)
	}
	if s.Action != "" && s.Enabled != nil {
		c.Errorf("enabled", "goes with state, not with action")
	}
	if len(s.RestartOn) > 0 && s.State != Running && !strings.Contains(string(s.State), "${") {
		c.Errorf("restartOn", "goes with state: running only")
	}
	if s.State == Stopped && s.Health != nil {
		c.Errorf("health", "goes with a unit that runs, not with state: stopped")
	}
	seen := map[string]bool{}
	for i, name := range s.RestartOn {
		at := strict.Index("restartOn", i)
		if pkg, ok := strings.CutPrefix(name, "package/"); ok {
			check(c, at, names.Label(pkg))
		} else if names.TaskID(name) != nil {
			c.Errorf(at, "found %q; allowed is the id of a task, or package/<name>", name)
		}
		if seen[name] {
			c.Errorf(at, "%q is listed twice", name)
		}
		seen[name] = true
	}
}

// Validate implements strict's hook.
func (h HealthCheck) Validate(c *strict.Context) {
	if h.timeout() > MaxTimeout {
		c.Errorf("timeout", "found %s; at most %s is allowed", h.timeout(), MaxTimeout)
	}
	if h.stableFor() > h.timeout() {
		c.Errorf("timeout", "is %s (default %s), shorter than stableFor, which is %s", h.timeout(), DefaultTimeout, h.stableFor())
	}
}

// Validate implements strict's hook.
func (h HTTPCheck) Validate(c *strict.Context) { check(c, "url", names.HTTPURL(h.URL)) }

// Validate implements strict's hook.
func (t TCPCheck) Validate(c *strict.Context) { check(c, "address", names.TCPAddress(t.Address)) }
