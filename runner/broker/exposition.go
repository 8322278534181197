package broker

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// The metrics are written by hand in Prometheus' text format
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format): its client library costs every command of the program
// memory, of which a run has little, and what the broker tells is a few counters and one histogram.

// metric is one name of /metrics.
type metric interface {
	// write appends the lines of the metric.
	write(b *bytes.Buffer)
}

// head begins a metric.
func head(b *bytes.Buffer, name, kind, help string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// number writes a value as the format has it: Go's, and whole numbers without an exponent.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// counter only grows.
type counter struct {
	name, help string
	n          atomic.Uint64
}

func (c *counter) inc() { c.n.Add(1) }

func (c *counter) write(b *bytes.Buffer) {
	head(b, c.name, "counter", c.help)
	fmt.Fprintf(b, "%s %d\n", c.name, c.n.Load())
}

// counters are one for each value of a label. The values come from this program and from GitHub's status codes, so they are few, and
// printable.
type counters struct {
	name, help, label string

	mu sync.Mutex // guards n
	n  map[string]uint64
}

// newCounters has those values from the start whose zero says something.
func newCounters(name, help, label string, known ...string) *counters {
	c := &counters{name: name, help: help, label: label, n: map[string]uint64{}}
	for _, value := range known {
		c.n[value] = 0
	}
	return c
}

func (c *counters) inc(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[value]++
}

func (c *counters) write(b *bytes.Buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	head(b, c.name, "counter", c.help)
	for _, value := range slices.Sorted(maps.Keys(c.n)) {
		fmt.Fprintf(b, "%s{%s=%q} %d\n", c.name, c.label, value, c.n[value])
	}
}

// gauge is read when somebody asks.
type gauge struct {
	name, help string
	read       func() float64
}

func (g gauge) write(b *bytes.Buffer) {
	head(b, g.name, "gauge", g.help)
	fmt.Fprintf(b, "%s %s\n", g.name, number(g.read()))
}

// histogram counts observations by size.
type histogram struct {
	name, help string
	bounds     []float64 // upper ones, inclusive, in ascending order

	mu     sync.Mutex // guards what follows
	counts []uint64   // of each bound alone; the last is of what is above all of them
	sum    float64
}

// newHistogram has n bounds, each twice the one before.
func newHistogram(name, help string, first float64, n int) *histogram {
	h := &histogram{name: name, help: help, counts: make([]uint64, n+1)}
	for range n {
		h.bounds = append(h.bounds, first)
		first *= 2
	}
	return h
}

func (h *histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[i]++
	h.sum += v
}

func (h *histogram) write(b *bytes.Buffer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	head(b, h.name, "histogram", h.help)
	total := uint64(0)
	for i, n := range h.counts {
		total += n
		bound := "+Inf"
		if i < len(h.bounds) {
			bound = number(h.bounds[i])
		}
		fmt.Fprintf(b, "%s_bucket{le=%q} %d\n", h.name, bound, total) // each has those below it as well
	}
	fmt.Fprintf(b, "%s_sum %s\n%s_count %d\n", h.name, number(h.sum), h.name, total)
}

// exposition answers with the metrics, in the order given.
type exposition []metric

// ServeHTTP implements http.Handler.
func (e exposition) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	for _, m := range e {
		m.write(&b)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	// Whoever asked has gone, if this fails.
	_, _ = w.Write(b.Bytes())
}
