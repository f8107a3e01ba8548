package admin

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// namedMetric finds a metric in a query, without the suffix of a histogram's series.
var namedMetric = regexp.MustCompile(`\b(fpm_gate_\w+?)(_bucket|_sum|_count)?\b`)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDashboardAndAlertsNameMetricsThatAreThere(t *testing.T) {
	metrics := read(t, "../docs/METRICS.md")
	for file, least := range map[string]int{
		"../docs/grafana/fpm-gate.json": 25, "../docs/alerts/fpm-gate.yml": 8, "../docs/alerts/phpfpm-exporter.yml": 6,
		"../docs/SLOW-SESSION.md": 4, "../docs/OPERATING.md": 1,
	} {
		seen := make(map[string]bool)
		for _, m := range namedMetric.FindAllStringSubmatch(read(t, file), -1) {
			seen[m[1]] = true
			if !strings.Contains(metrics, "| `"+m[1]+"` |") {
				t.Errorf("%s names %s, which docs/METRICS.md does not", file, m[0])
			}
		}
		if len(seen) < least {
			t.Errorf("%s names %d metrics, want %d at least", file, len(seen), least)
		}
	}
}

// notOnTheDashboard are the metrics that neither the dashboard nor an alert shows, and why.
var notOnTheDashboard = map[string]string{
	"fpm_gate_phpfpm_accepted_connections_total": "connections are the gate's to count: dials and reuses are there",
	"fpm_gate_phpfpm_active_processes_max":       "too high with reuse; max_over_time of the processes is right",
	"fpm_gate_session_cookies_unread_total":      "some are normal; where all are unread, the alert of misfits fires",
	"fpm_gate_phpfpm_listen_queue_max":           "since PHP-FPM's start; the backlog of each moment is there",
}

func TestMetricsAreOnTheDashboardOrItIsSaidWhyNot(t *testing.T) {
	shown := make(map[string]bool)
	for _, file := range []string{"../docs/grafana/fpm-gate.json", "../docs/alerts/fpm-gate.yml"} {
		for _, m := range namedMetric.FindAllStringSubmatch(read(t, file), -1) {
			shown[m[1]] = true
		}
	}
	all := regexp.MustCompile("(?m)^\\| `(fpm_gate_\\w+)` \\|").FindAllStringSubmatch(read(t, "../docs/METRICS.md"), -1)
	for _, m := range all {
		if _, left := notOnTheDashboard[m[1]]; left == shown[m[1]] {
			t.Errorf("%s: on the dashboard or in an alert: %v; left out with a reason: %v", m[1], shown[m[1]], left)
		}
	}
	if len(all) < 40 {
		t.Errorf("docs/METRICS.md has %d metrics, want 40 at least", len(all))
	}
}

func TestTheDashboardIsWhole(t *testing.T) {
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../docs/grafana/fpm-gate.json")), &board); err != nil {
		t.Fatal(err)
	}
	ids, taken := make(map[int]bool), make(map[[2]int]int)
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d has no query", p.ID)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, on := taken[[2]int{x, y}]; on || x > 23 {
					t.Fatalf("panel %d lies on panel %d, or outside", p.ID, other)
				}
				taken[[2]int{x, y}] = p.ID
			}
		}
	}
	if len(board.Panels) < 15 {
		t.Errorf("got %d panels, want 15 at least", len(board.Panels))
	}
}

// TestEachAlertIsExplained holds the page that says what to do to the alerts that there are.
func TestEachAlertIsExplained(t *testing.T) {
	page := read(t, "../docs/SLOW-SESSION.md")
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, "../docs/alerts/fpm-gate.yml"), -1)
	for _, alert := range alerts {
		if !strings.Contains(page, alert[1]) {
			t.Errorf("docs/SLOW-SESSION.md does not say what to do about %s", alert[1])
		}
	}
	for _, named := range regexp.MustCompile(`FpmGate\w+`).FindAllString(page, -1) {
		if !strings.Contains(read(t, "../docs/alerts/fpm-gate.yml"), "alert: "+named+"\n") {
			t.Errorf("docs/SLOW-SESSION.md names %s, which is no alert", named)
		}
	}
	if len(alerts) < 8 {
		t.Errorf("got %d alerts, want 8 at least", len(alerts))
	}
}

// TestAlertRulesAreRight has Prometheus's own tool read them.
func TestAlertRulesAreRight(t *testing.T) {
	rigtest.Need(t, "promtool")
	promtool, err := rig.Find("promtool")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../docs/alerts/fpm-gate.yml", "../docs/alerts/phpfpm-exporter.yml"} {
		if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func TestMetricsAreNamedAsPrometheusWants(t *testing.T) {
	s := newStand(t)
	m := s.Meters("www")("")
	m.Waited(gate.OutcomeHeld, time.Second, &sessionlock.Description{})
	m.Held(gate.HoldReleased, time.Second, nil)
	m.Ended(gate.OutcomeHeld, &gate.Times{Queued: true, Sent: true}, nil)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestWhatIsDocumentedAnswers holds docs/ADMIN.md to what there is, in both directions.
func TestWhatIsDocumentedAnswers(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	documented := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `(GET|PUT|DELETE) (\\S+)` \\|").FindAllStringSubmatch(read(t, "../docs/ADMIN.md"), -1) {
		method, path := row[1], row[2]
		documented[method+" "+path] = true
		if path == "/events" {
			continue // it never ends
		}
		if status, text := c.ask(method, strings.Replace(path, "KEY", "abc", 1), ""); strings.Contains(text, "page not found") || status == 405 {
			t.Errorf("%s %s: got status %d and %s", method, path, status, text)
		}
	}
	source := read(t, "admin.go")
	for _, route := range regexp.MustCompile(`m\.Handle(?:Func)?\("([A-Z]+) ([^"]+)"`).FindAllStringSubmatch(source, -1) {
		path := strings.Replace(route[2], "{key}", "KEY", 1)
		if strings.HasPrefix(path, "/debug/pprof/") {
			path = "/debug/pprof/"
		}
		if !documented[route[1]+" "+path] {
			t.Errorf("docs/ADMIN.md does not name %s %s", route[1], path)
		}
	}
	if len(documented) < 10 {
		t.Errorf("got %d requests, want 10 at least", len(documented))
	}
}
