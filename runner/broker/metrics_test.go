package broker

import (
	"bytes"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The metrics tell what happened.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.control()
	w.ask(http.MethodGet, good, "Bearer x.y.z")
	w.ask(http.MethodGet, "scope=acme/shop&identity=nobody", w.mint(nil))
	text := get(w.b, "/metrics").Body.String()
	for _, line := range []string{
		`agent_sandbox_broker_exchanges_total{outcome="granted"} 1`,
		`agent_sandbox_broker_exchanges_total{outcome="unauthenticated"} 1`,
		`agent_sandbox_broker_exchanges_total{outcome="not_found"} 1`,
		`agent_sandbox_broker_exchanges_total{outcome="internal"} 0`,
		`agent_sandbox_broker_exchange_seconds_count 3`,
		`agent_sandbox_broker_exchanges_in_flight 0`,
		`agent_sandbox_broker_jwks_fetches_total{result="ok"} 1`,
		`agent_sandbox_broker_github_requests_total{status="204"} 2`, // the tokens that read the trust policies
		`agent_sandbox_broker_revocations_failed_total 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

// Prometheus' own parser reads all of it, and finds the histogram's buckets to be what its count says.
func TestMetricsFormat(t *testing.T) {
	w := newWorld(t)
	w.control()
	w.control()
	answer := get(w.b, "/metrics")
	if got := expfmt.ResponseFormat(answer.Header()).FormatType(); got != expfmt.TypeTextPlain {
		t.Errorf("content type %q is format %v, want %v", answer.Header().Get("Content-Type"), got, expfmt.TypeTextPlain)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for name, f := range families {
		kinds[strings.TrimPrefix(name, "agent_sandbox_broker_")] = f.GetType().String()
		if f.GetHelp() == "" || len(f.GetMetric()) == 0 && name != "agent_sandbox_broker_github_requests_total" {
			t.Errorf("%s: help %q, %d values", name, f.GetHelp(), len(f.GetMetric()))
		}
	}
	want := map[string]string{
		"exchanges_total": "COUNTER", "github_requests_total": "COUNTER", "jwks_fetches_total": "COUNTER", "tokens_given_back_total": "COUNTER",
		"revocations_failed_total": "COUNTER", "audit_failures_total": "COUNTER", "exchange_seconds": "HISTOGRAM", "exchanges_in_flight": "GAUGE",
		"go_goroutines": "GAUGE", "go_memstats_sys_bytes": "GAUGE", "process_start_time_seconds": "GAUGE",
	}
	if diff := cmp.Diff(kinds, want); diff != "" {
		t.Errorf("metrics (-got +want):\n%s", diff)
	}
	h := families["agent_sandbox_broker_exchange_seconds"].GetMetric()[0].GetHistogram()
	last := h.GetBucket()[len(h.GetBucket())-1]
	if h.GetSampleCount() != 2 || last.GetCumulativeCount() != 2 || !math.IsInf(last.GetUpperBound(), 1) || len(h.GetBucket()) != 16 || h.GetSampleSum() <= 0 {
		t.Errorf("histogram: %v, want two exchanges in 16 buckets", h)
	}
}

// A value that is a bound counts in that bucket, as `le` says; one above all of them only in the last.
func TestHistogram(t *testing.T) {
	h := newHistogram("size", "Size.", 0.5, 2)
	for _, v := range []float64{0.25, 0.5, 0.75, 1, 7} {
		h.observe(v)
	}
	var b bytes.Buffer
	h.write(&b)
	want := "# HELP size Size.\n# TYPE size histogram\n" +
		"size_bucket{le=\"0.5\"} 2\nsize_bucket{le=\"1\"} 4\nsize_bucket{le=\"+Inf\"} 5\nsize_sum 9.5\nsize_count 5\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
