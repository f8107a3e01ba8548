package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestASlowRequestIsLoggedWithWhatItWaitsFor, while it runs: for its session, for another one that PHP has locked, or for
// a server. That no session id is in the log, in the name of a session's file, is what checkLog looks for.
func TestASlowRequestIsLoggedWithWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	for _, watch := range []string{"auto", "none"} {
		t.Run(watch, func(t *testing.T) {
			t.Parallel()
			eachNetwork(t, func(t *testing.T, network rig.Addr) { mustLogSlowRequests(t, network, watch) })
		})
	}
}

func mustLogSlowRequests(t *testing.T, network rig.Addr, watch string) {
	if watch == "auto" {
		needPtrace(t)
	}
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{
		PHP: rig.PHPOptions{Listen: network},
		Gate: rig.GateOptions{
			Config:   block + "log { slow_request = \"2s\" }\n", // the scripts are where they hang by then
			Settings: whySettings(watch) + "\nroute \"past\" {\n path = [\"/past.php\"]\n mode = \"off\"\n}",
		},
	})
	copyScript(t, s.Rig, "work.php", "past.php")
	session := newSession()
	_, target := s.stick(t, session)
	s.begin("/count.php?secret=1", session)
	s.begin("/past.php", session)
	worker := map[string]string{"auto": ` worker=\d+ state=sleeping syscall=%s target=%s`, "none": ``}[watch]
	for path, want := range map[string]string{
		"stuck.php": `key=\w{8} wait_ms=\d queue_ms=\d+ php_ms=\d{4,} stage=php` + in(worker, `p?poll`, regexp.QuoteMeta(target)),
		"count.php": `key=\w{8} wait_ms=\d{4,} queue_ms=0 php_ms=0 stage=session holder="GET /stuck.php" holder_script=\S*/stuck.php`,
		"past.php":  `route=past key=\w{8} wait_ms=\d queue_ms=\d+ php_ms=\d{4,} stage=php` + in(worker, `flock`, `/\S+/sess_\.\.\.`),
	} {
		line := regexp.MustCompile(`(?m)slow request: method=GET path=/` + path + ` script=\S+/` + path + ` ` + want + `$`)
		eventually(t, fmt.Sprintf("the log has %s", line), func() bool { return line.MatchString(s.Gate.Log()) })
	}
	if metrics := admin.get(t, "/metrics"); !strings.Contains(metrics, `fpm_gate_slow_requests_total{gate="www",route="past"} 1`) {
		t.Error("the slow request is not counted")
	}
	if hour := lastHour(t, admin)["/stuck.php"]; hour.Slow != 1 {
		t.Errorf("the last hour: got %+v, want the slow request that runs", hour)
	}
}

// in fills in what a worker waits for, if that can be seen.
func in(worker, syscall, target string) string {
	if worker == "" {
		return ""
	}
	return fmt.Sprintf(worker, syscall, target)
}

// hourOf is what the tests look at of a script in GET /history.
type hourOf struct {
	Script         string
	Requests, Slow int
	Wait           int `json:"wait_ms_total"`
	Queue          int `json:"queue_ms_total"`
	PHP            int `json:"php_ms_total"`
}

// lastHour returns the scripts of the last hour by their names.
func lastHour(t *testing.T, o operator) map[string]hourOf {
	t.Helper()
	var page struct{ Scripts []hourOf }
	if err := json.Unmarshal([]byte(o.get(t, "/history")), &page); err != nil {
		t.Error(err)
	}
	all := make(map[string]hourOf)
	for _, s := range page.Scripts {
		all[s.Script[strings.LastIndex(s.Script, "/"):]] = s
	}
	return all
}

// newCrowded starts a stack whose gate has one connection to PHP-FPM.
func newCrowded(t *testing.T, network rig.Addr, upstream string) (*stack, operator) {
	t.Helper()
	s := &stack{Rig: newRig(t, "nginx", "php-fpm")}
	s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{Listen: network})
	listen, err := s.Reserve("unix", "gate")
	if err != nil {
		t.Fatal(err)
	}
	block, admin := adminBlock(t)
	config := block + gateOf("www", listen, fmt.Sprintf("address = %q\n%s", s.PHP.Addr, upstream), "")
	s.Gate = startGate(t, s.Rig, rig.GateOptions{Config: config})
	s.Site = &rig.Site{FastCGI: listen}
	s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
	return s, admin
}

// TestTheTimesOfARequestAreToldApart to PHP, in the metrics and in the last hour: one that waits for a connection.
func TestTheTimesOfARequestAreToldApart(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s, admin := newCrowded(t, network, "max_connections = 1")
		held := s.hold(t, newSession(), "hold")
		waiting := s.begin("/info.php?session=0", newSession())
		eventually(t, "it waits for the connection", func() bool { return seriesValue(t, admin, `fpm_gate_upstream_queue{gate="www"}`) == 1 })
		time.Sleep(20 * time.Millisecond) // the time that is measured
		letGo(t, s.Rig, "hold")
		(<-held).mustBe(t, "last\n")
		r := <-waiting
		var got info
		if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != http.StatusOK {
			t.Fatalf("got status %d, %q and %v", r.status, r.body, err)
		}
		queue, err := strconv.Atoi(got.Gate["FPM_GATE_QUEUE_MS"])
		if err != nil || queue < 20 || got.Gate["FPM_GATE_WAIT_MS"] != "0" {
			t.Errorf("PHP got %v, want a wait for the connection of 20 ms at least, and none for the session", got.Gate)
		}
		const of = `{gate="www",outcome="held",route=""}`
		eventually(t, "both are measured", func() bool { return seriesValue(t, admin, "fpm_gate_php_seconds_count"+of) == 2 })
		if n := seriesValue(t, admin, "fpm_gate_upstream_queue_seconds_count"+of); n != 2 {
			t.Errorf("got %v waits for a connection, want 2", n)
		}
		measured := 1000 * seriesValue(t, admin, "fpm_gate_upstream_queue_seconds_sum"+of)
		if hour := lastHour(t, admin)["/info.php"]; hour.Queue != queue || int(measured) < queue || hour.Requests != 1 {
			t.Errorf("got %+v in the last hour and %v ms in the metrics, want %d ms", hour, measured, queue)
		}
	})
}

// seriesValue returns the value of one series; 0 if it is not there yet.
func seriesValue(t *testing.T, o operator, series string) float64 {
	t.Helper()
	for line := range strings.Lines(o.get(t, "/metrics")) {
		if text, ok := strings.CutPrefix(line, series+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Error(err)
			}
			return value
		}
	}
	return 0
}

// TestWorkersAreCountedAsTheyWork: one that is kept for the next request is idle, which PHP-FPM's own page does not know,
// and one whose script goes on after its response is active.
func TestWorkersAreCountedAsTheyWork(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s, admin := newCrowded(t, network, "max_connections = 3\nreuse = \"1h\"\nidle = \"1h\"")
		want := func(when string, active, idle int) {
			t.Helper()
			eventually(t, fmt.Sprintf("%s, %d workers are active and %d idle", when, active, idle), func() bool {
				of := func(what string) float64 { return seriesValue(t, admin, `fpm_gate_`+what+`_processes{gate="www"}`) }
				return of("active") == float64(active) && of("idle") == float64(idle) && of("total") == 3
			})
		}
		want("at the start", 0, 3)
		held := s.hold(t, newSession(), "hold")
		want("while a script runs", 1, 2)
		letGo(t, s.Rig, "hold")
		(<-held).mustBe(t, "last\n")
		want("when it has ended", 0, 3)
		if network.Network == "unix" { // and where a connection is kept
			idle := fmt.Sprintf(`fpm_gate_upstream_connections{address=%q,gate="www",state="idle"}`, s.PHP.Addr.String())
			eventually(t, "a worker is back from its script in time", func() bool {
				s.get("/hello.php", newSession()).mustBe(t, "hello\n")
				return t.Failed() || seriesValue(t, admin, idle) == 1
			})
			want("with a kept connection", 0, 3)
		}
		(<-s.export("finish", newSession())).mustBe(t, "export\n")
		want("while a script goes on after its response", 1, 2)
		letGo(t, s.Rig, "finish")
		want("when that has ended", 0, 3)
	})
}
