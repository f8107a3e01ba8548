package tests

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// metric is what docs/METRICS.md says of a metric, or /metrics does.
type metric struct {
	kind   string
	labels string // sorted
}

// TestTheDocsNameAllMetricsAndNoOthers has a gate with all that there is to be measured, and compares what it gives with
// docs/METRICS.md, in both directions.
func TestTheDocsNameAllMetricsAndNoOthers(t *testing.T) {
	t.Parallel()
	s, admin := newMeasured(t)
	for _, session := range []string{"", newSession()} {
		s.get("/hello.php", session).mustBe(t, "hello\n")
	}
	documented := documentedMetrics(t)
	var text string
	eventually(t, "PHP-FPM's status is among the metrics", func() bool { // not at all times: it may answer late
		text = admin.get(t, "/metrics")
		return strings.Contains(text, "fpm_gate_phpfpm_processes{")
	})
	given := givenMetrics(t, text)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if documented[name] != given[name] {
			t.Errorf("%s: /metrics gives %v, docs/METRICS.md says %v", name, given[name], documented[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := given[name]; !ok {
			t.Errorf("%s stands in docs/METRICS.md, and /metrics does not give it", name)
		}
	}
	if len(given) < 40 {
		t.Errorf("got %d metrics, want more than 40", len(given))
	}
}

// newMeasured starts a stack in which all metrics have something to measure.
func newMeasured(t *testing.T) (*stack, operator) {
	t.Helper()
	r := newRig(t, "nginx", "php-fpm", "memcached")
	s := &stack{Rig: r, PHP: rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: rig.TCP})}
	store := rigtest.Start(t, r.Memcached, rig.StoreOptions{})
	block, admin := adminBlock(t)
	upstream := fmt.Sprintf("address = %q\n status_path = %q\n probe_interval = \"100ms\"\n max_connections = 4", s.PHP.Addr, rig.StatusPath)
	listen, err := r.Reserve("unix", "www")
	if err != nil {
		t.Fatal(err)
	}
	s.Gate = startGate(t, r, rig.GateOptions{Config: gateOf("www", listen, upstream, inMemcached) + block + memcachedBlock(store, "3s", "")})
	s.Site = &rig.Site{FastCGI: listen}
	s.Web = rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
	return s, admin
}

var (
	metricRow   = regexp.MustCompile("(?m)^\\| `(fpm_gate_\\w+)` \\| (\\w+) \\| ([a-z, ]*)\\|")
	typeLine    = regexp.MustCompile(`(?m)^# TYPE (fpm_gate_\w+) (\w+)$`)
	sampleLine  = regexp.MustCompile(`(?m)^(fpm_gate_\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$`)
	sampleLabel = regexp.MustCompile(`(\w+)="`)
)

func documentedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]metric)
	for _, row := range metricRow.FindAllStringSubmatch(string(text), -1) {
		labels := strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		all[row[1]] = metric{row[2], strings.Join(labels, " ")}
	}
	return all
}

func givenMetrics(t *testing.T, text string) map[string]metric {
	t.Helper()
	all := make(map[string]metric)
	for _, line := range typeLine.FindAllStringSubmatch(text, -1) {
		all[line[1]] = metric{kind: line[2]}
	}
	for _, line := range sampleLine.FindAllStringSubmatch(text, -1) {
		var labels []string
		for _, label := range sampleLabel.FindAllStringSubmatch(line[2], -1) {
			if label[1] != "le" {
				labels = append(labels, label[1])
			}
		}
		slices.Sort(labels)
		m, known := all[line[1]]
		joined := strings.Join(labels, " ")
		if !known || m.labels != "" && m.labels != joined {
			t.Errorf("got sample %q of %v", line[0], m)
		}
		m.labels = cmp.Or(m.labels, joined)
		all[line[1]] = m
	}
	return all
}
