package admin

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// family is a group of metrics that are read from the same T.
type family[T any] []metric[T]

// metric is a metric that is read on a scrape.
type metric[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(from T, emit emit)
}

// emit sends one value of a metric, with the values of those labels that are not the same for the whole T.
type emit func(value float64, labels ...string)

func newFamily[T any](metrics ...metric[T]) family[T] { return metrics }

func (f family[T]) describe(to chan<- *prometheus.Desc) {
	for _, m := range f {
		to <- m.desc
	}
}

// collect reads the family from a T. The labels come before those that a metric adds.
func (f family[T]) collect(to chan<- prometheus.Metric, from T, labels ...string) {
	labels = slices.Clip(labels) // append must not write into the labels of another metric
	for _, m := range f {
		m.read(from, func(value float64, more ...string) {
			// It panics only if a metric gives other labels than it declares, which a test would see.
			to <- prometheus.MustNewConstMetric(m.desc, m.kind, value, append(labels, more...)...)
		})
	}
}

// counters is a counter, and gauges a gauge, that has several values for one T.
func counters[T any](name, help string, read func(T, emit), labels ...string) metric[T] {
	return metric[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue, read}
}

func gauges[T any](name, help string, read func(T, emit), labels ...string) metric[T] {
	return metric[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, read}
}

func counter[T any](name, help string, read func(T) uint64, labels ...string) metric[T] {
	return counters(name, help, func(from T, emit emit) { emit(float64(read(from))) }, labels...)
}

func gauge[T any, N int | uint64 | float64](name, help string, read func(T) N, labels ...string) metric[T] {
	return gauges(name, help, func(from T, emit emit) { emit(float64(read(from))) }, labels...)
}

// flag is a gauge that is 1 or 0.
func flag[T any](name, help string, read func(T) bool, labels ...string) metric[T] {
	return gauges(name, help, func(from T, emit emit) { emit(number(read(from))) }, labels...)
}

// number returns 1 for true and 0 for false.
func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
