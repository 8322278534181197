package broker

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics tells. No label has a value that a client chooses.
type metrics struct {
	registry   *prometheus.Registry
	exchanges  *prometheus.CounterVec
	duration   prometheus.Histogram
	inFlight   prometheus.Gauge
	github     *prometheus.CounterVec
	keys       *prometheus.CounterVec
	givenBack  prometheus.Counter
	unrevoked  prometheus.Counter
	unrecorded prometheus.Counter
}

func newMetrics() *metrics {
	const ns = "agent_sandbox_broker"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		registry:   prometheus.NewRegistry(),
		exchanges:  vec("exchanges_total", "Exchanges by outcome.", "outcome"),
		duration:   prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Name: "exchange_seconds", Help: "Time from request to answer.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
		inFlight:   prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "exchanges_in_flight", Help: "Exchanges under way."}),
		github:     vec("github_requests_total", "Requests of GitHub's API by status, 0 without an answer.", "status"),
		keys:       vec("jwks_fetches_total", "Fetches of issuers' keys by result.", "result"),
		givenBack:  counter("tokens_given_back_total", "Tokens that may be used again, since GitHub failed before anything was issued."),
		unrevoked:  counter("revocations_failed_total", "Tokens that could not be revoked and live out their hour."),
		unrecorded: counter("audit_failures_total", "Records that the database did not take."),
	}
	m.registry.MustRegister(m.exchanges, m.duration, m.inFlight, m.github, m.keys, m.givenBack, m.unrevoked, m.unrecorded,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, code := range []int{codeGranted, codeInvalid, codeNotFound, codeDenied, codeExhausted, codeInternal, codeUnauthenticated} {
		m.exchanges.WithLabelValues(outcome(code)) // zero is a value too
	}
	for _, result := range []string{"ok", "failed"} {
		m.keys.WithLabelValues(result)
	}
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// exchange counts one that begins; the function that it returns is for its end.
func (m *metrics) exchange() (done func(code int)) {
	m.inFlight.Inc()
	start := time.Now()
	return func(code int) {
		m.inFlight.Dec()
		m.duration.Observe(time.Since(start).Seconds())
		m.exchanges.WithLabelValues(outcome(code)).Inc()
	}
}

func (m *metrics) keysFetched(err error) {
	if err != nil {
		m.keys.WithLabelValues("failed").Inc()
		return
	}
	m.keys.WithLabelValues("ok").Inc()
}

func (m *metrics) githubAnswered(status int) { m.github.WithLabelValues(strconv.Itoa(status)).Inc() }

func outcome(code int) string {
	switch code {
	case codeGranted:
		return "granted"
	case codeInvalid:
		return "invalid"
	case codeNotFound:
		return "not_found"
	case codeDenied:
		return "denied"
	case codeExhausted:
		return "exhausted"
	case codeUnauthenticated:
		return "unauthenticated"
	}
	return "internal"
}
