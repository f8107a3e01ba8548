package gate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const slowText = "slow request: "

// slowStand is a gate that logs requests that take longer than limit.
func slowStand(t *testing.T, l *ledger, limit time.Duration, connections int) *stand {
	return newStand(t, func(o *Options) {
		o.SlowRequest = limit
		o.Upstream.MaxConnections = connections
		o.Meter = l.meter
		o.Routes = []Route{{Name: "named", Paths: []string{"/named"}, Policy: o.Policy}}
	})
}

// TestASlowRequestIsLoggedWhileItRuns, with the stage that it is in.
func TestASlowRequestIsLoggedWhileItRuns(t *testing.T) {
	for stage, want := range map[string]string{
		"php":        `method=GET path=/named script=/srv/slow.php route=named key=\w+ wait_ms=0 queue_ms=\d+ php_ms=\d+ stage=php$`,
		"session":    `script=/srv/slow.php .*wait_ms=\d+ queue_ms=0 php_ms=0 stage=session holder="GET /page" holder_script=/srv/index.php$`,
		"connection": `script=/srv/slow.php .*wait_ms=0 queue_ms=\d+ php_ms=0 stage=connection$`,
	} {
		t.Run(stage, func(t *testing.T) {
			l := newLedger()
			s := slowStand(t, l, 20*time.Millisecond, 1)
			var ahead *browser
			var holder *script
			switch stage {
			case "session":
				ahead = s.ask(session("one")...)
				holder = s.php.next()
			case "connection":
				ahead = s.ask(session("other")...)
				holder = s.php.next()
			}
			slow := s.ask(append(session("one"), "SCRIPT_FILENAME", "/srv/slow.php", "REQUEST_URI", "/named?secret=1")...)
			line := regexp.MustCompile(`(?m)` + slowText + `.*` + want)
			await(t, "it is logged", func() bool { return line.MatchString(s.log.String()) })
			if ahead != nil {
				holder.end(page)
				ahead.want("")
			}
			s.php.next().end(page)
			slow.want("")
			l.want(t, "slow ones", func() map[string]int {
				if ahead != nil {
					delete(l.slow, "/srv/index.php") // so is the one ahead
				}
				return l.slow
			}, map[string]int{"/srv/slow.php": 1})
			if log := s.log.String(); strings.Contains(log, "secret") {
				t.Errorf("the log has the query:\n%s", log)
			}
			if got := s.Stats().Routes[1]; got.Name != "named" || got.Slow != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestAReloadCountsForTheNextRequest of a conn whose requests have been watched for longer, and for no time at all.
func TestAReloadCountsForTheNextRequest(t *testing.T) {
	l := newLedger()
	s := newStand(t, func(o *Options) { o.SlowRequest, o.Meter = time.Hour, l.meter })
	b := s.ask()
	s.php.next().end(page)
	b.want("")
	for n, limit := range []time.Duration{10 * time.Millisecond, 0, 10 * time.Millisecond} {
		s.Configure(s.options(func(o *Options) { o.SlowRequest, o.Meter = limit, l.meter }))
		b.again()
		script := s.php.next()
		if limit > 0 {
			await(t, "it is slow", func() bool { return s.Stats().Routes[0].Slow == uint64(n/2+1) })
		} else {
			time.Sleep(30 * time.Millisecond)
		}
		script.end(page)
		b.want("")
	}
	if got := s.Stats().Routes[0].Slow; got != 2 {
		t.Errorf("got %d slow requests, want 2", got)
	}
}

// TestEachSlowRequestOfAConnIsReportedOnce, and no other one.
func TestEachSlowRequestOfAConnIsReportedOnce(t *testing.T) {
	const limit = 30 * time.Millisecond
	l := newLedger()
	s := slowStand(t, l, limit, 0)
	b := s.ask()
	s.php.next().end(page)
	b.want("")
	for n := range 6 {
		b.again("SCRIPT_FILENAME", strconv.Itoa(n))
		script := s.php.next()
		if n%2 == 1 {
			await(t, "it is slow", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.slow[strconv.Itoa(n)] > 0 })
			time.Sleep(2 * limit) // in which it could be reported again
		}
		script.end(page)
		b.want("")
	}
	l.want(t, "ends", func() map[string]int { return l.ends }, map[string]int{" none": 7})
	for script, times := range l.times {
		if n := l.slow[script]; n > 1 || n == 1 && times.Total() < limit {
			t.Errorf("request %s took %v, and was reported %d times", script, times.Total(), n)
		}
	}
}

// TestNoRequestIsSlowByItsBody nor where slow_request is off.
func TestNoRequestIsSlowByItsBody(t *testing.T) {
	for name, limit := range map[string]time.Duration{"body": 100 * time.Millisecond, "off": 0} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			s := slowStand(t, l, limit, 0)
			if limit == 0 {
				b := s.ask()
				script := s.php.next()
				time.Sleep(30 * time.Millisecond)
				script.end(page)
				b.want("")
			} else {
				up := s.upload("one")
				s.late(1)
				time.Sleep(3 * limit)
				if strings.Contains(s.log.String(), slowText) {
					t.Error("it is slow while its body comes")
				}
				up.finish()
				script := s.php.next()
				await(t, "it is slow in PHP", func() bool { return strings.Contains(s.log.String(), slowText) })
				script.end(page)
				up.want("")
			}
			if got := strings.Count(s.log.String(), slowText); got != min(1, int(limit)) {
				t.Errorf("got %d lines", got)
			}
		})
	}
}

// TestSlowRequestsCannotFloodTheLog: of one path there is one line, and not many of all; all are counted.
func TestSlowRequestsCannotFloodTheLog(t *testing.T) {
	l := newLedger()
	s := newStand(t, func(o *Options) { o.SlowRequest, o.Meter = time.Millisecond, l.meter })
	const requests, paths = 60, 20
	var all []*browser
	for n := range requests {
		all = append(all, s.ask("REQUEST_URI", fmt.Sprintf("/%d?%d", n%paths, n)))
	}
	await(t, "all are slow", func() bool { return s.Stats().Routes[0].Slow == requests })
	for range all {
		s.php.next().end(page)
	}
	for _, b := range all {
		b.want("")
	}
	s.slow.flush()
	log := s.log.String()
	for _, line := range regexp.MustCompile(` path=\S+`).FindAllString(log, -1) {
		if n := strings.Count(log, slowText+"method=GET"+line+" "); n > 1 {
			t.Errorf("got %d lines of%s", n, line)
		}
	}
	lines := strings.Count(log, slowText)
	counted := fmt.Sprintf("slow request (further ones, not logged individually): requests=%d within_ms=60000", requests-lines)
	if lines != slowLines || !strings.Contains(log, counted) {
		t.Errorf("got %d lines, want %d, and %q:\n%s", lines, slowLines, counted, log)
	}
}

// TestTimesOfARequest has one go through all stages.
func TestTimesOfARequest(t *testing.T) {
	l := newLedger()
	s := slowStand(t, l, time.Hour, 1)
	const least = 20 * time.Millisecond
	first := s.ask(session("one")...)
	holder := s.php.next()
	waits := s.ask(append(session("one"), "SCRIPT_FILENAME", "/srv/waits.php")...)
	s.waiters(1)
	queues := s.ask(append(session("two"), "SCRIPT_FILENAME", "/srv/queues.php")...)
	await(t, "it waits for a connection", func() bool { return s.Stats().Pool.Queued == 1 })
	time.Sleep(least) // the time that is measured
	holder.end(page)
	first.want("")
	script := s.php.next()
	if ms := script.params["FPM_GATE_QUEUE_MS"]; len(ms) < 2 {
		t.Errorf("FPM_GATE_QUEUE_MS: got %q, want %v at least", ms, least)
	}
	time.Sleep(least)
	script.end(page)
	queues.want("")
	s.php.next().end(page)
	waits.want("")
	l.want(t, "ends", func() map[string]int { return l.ends }, map[string]int{" held": 3})
	got := func(script string) Times { l.mu.Lock(); defer l.mu.Unlock(); return l.times[script] }
	if q := got("/srv/queues.php"); q.Connection < least || q.PHP < least || q.Session >= q.Connection || !q.Queued || !q.Sent {
		t.Errorf("the one that queued: got %+v", q)
	}
	if w := got("/srv/waits.php"); w.Session < least || w.Connection < least/2 || !w.Sent {
		t.Errorf("the one that waited: got %+v", w)
	}
}

// TestNoSessionIDInWhatAScriptWaitsFor: the file of a session has its id as its name.
func TestNoSessionIDInWhatAScriptWaitsFor(t *testing.T) {
	for target, want := range map[string]string{
		"/var/lib/php/sessions/sess_0123456789abcdefghijklmnop":      "/var/lib/php/sessions/sess_...",
		"/srv/storage/framework/sessions/" + strings.Repeat("x", 40): "/srv/storage/framework/sessions/...",
		"/srv/cache/report.lock":                                     "/srv/cache/report.lock",
		"unix:/run/mysqld/mysqld.sock":                               "unix:/run/mysqld/mysqld.sock",
		"10.0.0.7:3306":                                              "10.0.0.7:3306",
		"":                                                           "",
	} {
		if got := withoutID(target); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}
