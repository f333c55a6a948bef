package report

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Metrics exports the status document, so that alerts and `status` can't
// disagree. It costs nothing between scrapes. Safe for concurrent use.
type Metrics struct {
	status atomic.Pointer[v1.NodeStatus]

	info, condition, generation, element, expiry, repairs *prometheus.Desc
}

// NewMetrics returns metrics without a status; they are empty until Set.
func NewMetrics() *Metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gpuaas_node_agent_"+name, help, labels, nil)
	}
	return &Metrics{
		info:       desc("info", "Who the agent is; always 1.", "node", "version", "phase"),
		condition:  desc("condition", "1 for the status that the condition has now.", "type", "status", "reason"),
		generation: desc("generation", "Generation of the manifest: desired as last verified, observed as last reached.", "which"),
		element:    desc("element", "1 for the state that the package or task has now.", "name", "type", "state"),
		expiry:     desc("metadata_expiry_timestamp_seconds", "When the metadata of a TUF role expires.", "role"),
		repairs:    desc("drift_repairs_total", "Repairs of drift since the agent started."),
	}
}

// Set replaces the status that is exported.
func (m *Metrics) Set(s v1.NodeStatus) { m.status.Store(&s) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.info, m.condition, m.generation, m.element, m.expiry, m.repairs} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.status.Load()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.info, 1, s.Node, s.AgentVersion, s.Phase)
	for _, c := range s.Conditions {
		gauge(m.condition, 1, string(c.Type), string(c.Status), string(c.Reason))
	}
	gauge(m.generation, float64(s.DesiredGeneration), "desired")
	gauge(m.generation, float64(s.ObservedGeneration), "observed")
	for _, e := range append(append([]v1.ElementStatus{}, s.Packages...), s.Tasks...) {
		kind := e.Type
		if kind == "" {
			kind = "package"
		}
		gauge(m.element, 1, e.Name, kind, string(e.State))
	}
	if s.Trust != nil {
		for role, when := range s.Trust.Expires {
			gauge(m.expiry, float64(when.Unix()), role)
		}
	}
	ch <- prometheus.MustNewConstMetric(m.repairs, prometheus.CounterValue, float64(s.Repairs))
}

// Handler serves the metrics in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}
