package broker

import (
	"net/http"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"
)

// metricSet is what /metrics tells. No label has a value that a client chooses.
type metricSet struct {
	exchanges  *counters
	duration   *histogram
	inFlight   atomic.Int64
	github     *counters
	keys       *counters
	givenBack  counter
	unrevoked  counter
	unrecorded counter
	started    time.Time
}

func newMetrics() *metricSet {
	const ns = "agent_sandbox_broker_"
	var outcomes []string
	for _, code := range []int{codeGranted, codeInvalid, codeNotFound, codeDenied, codeExhausted, codeInternal, codeUnauthenticated} {
		outcomes = append(outcomes, outcome(code))
	}
	return &metricSet{
		exchanges:  newCounters(ns+"exchanges_total", "Exchanges by outcome.", "outcome", outcomes...),
		duration:   newHistogram(ns+"exchange_seconds", "Time from request to answer.", 0.001, 15),
		github:     newCounters(ns+"github_requests_total", "Requests of GitHub's API by status, 0 without an answer.", "status"),
		keys:       newCounters(ns+"jwks_fetches_total", "Fetches of issuers' keys by result.", "result", "ok", "failed"),
		givenBack:  counter{name: ns + "tokens_given_back_total", help: "Tokens that may be used again, since GitHub failed before anything was issued."},
		unrevoked:  counter{name: ns + "revocations_failed_total", help: "Tokens that could not be revoked and live out their hour."},
		unrecorded: counter{name: ns + "audit_failures_total", help: "Records that the database did not take."},
		started:    time.Now(),
	}
}

func (m *metricSet) handler() http.Handler {
	return exposition{
		m.exchanges, m.duration,
		gauge{"agent_sandbox_broker_exchanges_in_flight", "Exchanges under way.", func() float64 { return float64(m.inFlight.Load()) }},
		m.github, m.keys, &m.givenBack, &m.unrevoked, &m.unrecorded,
		// Under the names that dashboards know from Prometheus' own library.
		gauge{"go_goroutines", "Number of goroutines that currently exist.", func() float64 { return float64(runtime.NumGoroutine()) }},
		gauge{"go_memstats_sys_bytes", "Number of bytes obtained from system.", memory},
		gauge{"process_start_time_seconds", "Start time of the process since unix epoch in seconds.", func() float64 { return float64(m.started.UnixMilli()) / 1000 }},
	}
}

// memory is what the runtime holds of the system's.
func memory() float64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(sample)
	return float64(sample[0].Value.Uint64())
}

// exchange counts one that begins; the function that it returns is for its end.
func (m *metricSet) exchange() (done func(code int)) {
	m.inFlight.Add(1)
	start := time.Now()
	return func(code int) {
		m.inFlight.Add(-1)
		m.duration.observe(time.Since(start).Seconds())
		m.exchanges.inc(outcome(code))
	}
}

func (m *metricSet) keysFetched(err error) {
	if err != nil {
		m.keys.inc("failed")
		return
	}
	m.keys.inc("ok")
}

func (m *metricSet) githubAnswered(status int) { m.github.inc(strconv.Itoa(status)) }

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
