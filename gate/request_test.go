package gate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestRequestsOfASessionRunOneBehindTheOtherInTheirOrder(t *testing.T) {
	s := newStand(t, nil)
	var all []*browser
	for i := range 5 {
		all = append(all, s.ask(append(session("one"), "N", strconv.Itoa(i))...))
		if i == 0 {
			await(t, "the first one runs", func() bool { return len(s.php.running) == 1 })
		}
		s.waiters(i)
	}
	for i, b := range all {
		script := s.php.next()
		if got := script.params["N"]; got != strconv.Itoa(i) {
			t.Errorf("request %s runs in turn %d", got, i)
		}
		s.php.none(t)
		script.end(page + "done")
		b.want("done")
	}
	s.unlocked()
	if got := s.Stats(); got.Acquired != 5 || got.Requests != 5 || got.None != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestOthersDoNotWait(t *testing.T) {
	s := newStand(t, func(o *Options) {
		o.Routes = []Route{{Paths: []string{"/off"}, Policy: Policy{Mode: Off}}}
	})
	s.ask(session("one")...)
	holder := s.php.next()
	for name, params := range map[string][]string{
		"another session":            session("two"),
		"no session":                 nil,
		"an id that PHP will refuse": session("<script>"),
		"the same, where it is off":  append(session("one"), "SCRIPT_NAME", "/off"),
	} {
		b := s.ask(params...)
		s.php.next().end(page + "x")
		if got := b.response(); got.body != "x" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	holder.end(page)
}

func TestPHPLearnsOfTheLock(t *testing.T) {
	s := newStand(t, func(o *Options) {
		read, pass := o.Policy, o.Policy
		read.Mode = Read
		pass.MaxWait, pass.OnMaxWait = time.Millisecond, OnMaxWaitPass
		o.Routes = []Route{
			{Paths: []string{"/read"}, Policy: read},
			{Paths: []string{"/pass"}, Policy: pass},
		}
	})
	held := []string{"FPM_GATE_LOCK", "FPM_GATE_QUEUE_MS", "FPM_GATE_KEY", "FPM_GATE_WAIT_MS", "FPM_GATE_TOKEN", "FPM_GATE_EXPIRES"}
	s.ask(session("busy")...)
	holder := s.php.next()
	for _, c := range []struct {
		lock   string
		params []string
		names  []string // of the gate's params
	}{
		{"held", session("one"), held},
		{"none", nil, held[:2]},
		{"read", append(session("two"), "SCRIPT_NAME", "/read"), held[:4]},
		{"passed", append(session("busy"), "SCRIPT_NAME", "/pass"), held[:4]},
	} {
		before := time.Now()
		b := s.ask(c.params...)
		script := s.php.next()
		if got := script.params["FPM_GATE_LOCK"]; got != c.lock {
			t.Errorf("FPM_GATE_LOCK is %q, want %q", got, c.lock)
		}
		own := slices.DeleteFunc(script.names, func(name string) bool { return !strings.HasPrefix(name, "FPM_GATE_") })
		if !slices.Equal(own, c.names) {
			t.Errorf("%s: got params %q, want %q", c.lock, own, c.names)
		}
		if c.lock == "held" {
			key := sessionlock.KeyFor(nil, "test", phpsession.LockName([]byte("one"))).String()
			if got := script.params["FPM_GATE_KEY"]; got != key {
				t.Errorf("FPM_GATE_KEY is %q, want %q", got, key)
			}
			expires, err := strconv.ParseInt(script.params["FPM_GATE_EXPIRES"], 10, 64)
			// A script that compares it with any clock of this machine must not take an expired lock for held.
			earliest, latest := before.Add(time.Minute-time.Second), time.Now().Add(time.Minute)
			if until := time.Unix(expires, 0); err != nil || until.Before(earliest) || until.After(latest) {
				t.Errorf("FPM_GATE_EXPIRES is %q, want a minute from now, and no later", script.params["FPM_GATE_EXPIRES"])
			}
		}
		if c.lock == "passed" && script.params["FPM_GATE_WAIT_MS"] == "0" {
			t.Error("FPM_GATE_WAIT_MS is 0 after a wait")
		}
		script.end(page)
		b.want("")
	}
	holder.end(page)
}

func TestRequestCannotSayWhatTheGateSays(t *testing.T) {
	s := newStand(t, nil)
	params := []string{"FPM_GATE_LOCK", "held", "FPM_GATE_TOKEN", "forged", "FPM_GATE_OTHER", "x", "FPM_GATE", "no prefix"}
	for i := range 4000 { // more than a record holds
		params = append(params, fmt.Sprintf("FPM_GATE_LONG_NAME_%d", i), "x")
	}
	b := s.ask(params...)
	script := s.php.next()
	for name, want := range map[string]string{
		"FPM_GATE_LOCK": "none", "FPM_GATE_TOKEN": "", "FPM_GATE_OTHER": "", "FPM_GATE_LONG_NAME_3999": "", "FPM_GATE": "no prefix",
	} {
		if got := script.params[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	script.end(page + "ok")
	b.want("ok")
}

func TestSessionParamGoesFirst(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Param = "SESSION_ID" })
	for name, c := range map[string]struct {
		params []string
		id     string
	}{
		"the param alone":          {[]string{"SESSION_ID", "a"}, "a"},
		"next to a cookie":         {append(session("b"), "SESSION_ID", "a"), "a"},
		"an empty one":             {append(session("b"), "SESSION_ID", ""), "b"},
		"one that PHP will refuse": {append(session("b"), "SESSION_ID", "a b"), "b"},
		"its last value":           {[]string{"SESSION_ID", "x", "SESSION_ID", "a"}, "a"},
	} {
		b := s.ask(c.params...)
		script := s.php.next()
		if got, want := script.params["FPM_GATE_KEY"], sessionlock.KeyFor(nil, "test", phpsession.LockName([]byte(c.id))).String(); got != want {
			t.Errorf("%s: got key %q, want that of %q", name, got, c.id)
		}
		script.end(page)
		b.want("")
	}
}

func TestFirstRouteThatMatchesDecides(t *testing.T) {
	s := newStand(t, func(o *Options) {
		o.Routes = []Route{
			{Name: "post", Methods: []string{"POST"}, Paths: []string{"/api/**"}, Policy: o.Policy},
			{Name: "api", Paths: []string{"/api/**"}, Policy: Policy{Mode: Off}},
			{Name: "host", Hosts: []string{"static.example.com"}, Policy: Policy{Mode: Off}},
		}
	})
	for name, c := range map[string]struct {
		params []string
		lock   string
	}{
		"no route":                    {nil, "held"},
		"a later route":               {[]string{"REQUEST_URI", "/api/x"}, "none"},
		"an earlier route":            {[]string{"REQUEST_URI", "/api/x", "REQUEST_METHOD", "POST"}, "held"},
		"the host":                    {[]string{"HTTP_HOST", "Static.Example.com:80"}, "none"},
		"dots that lead in":           {[]string{"REQUEST_URI", "/x/../api/y"}, "held"}, // not all applications follow them
		"dots past a later route":     {[]string{"REQUEST_URI", "/x/../api/y", "HTTP_HOST", "static.example.com"}, "held"},
		"dots that lead out":          {[]string{"REQUEST_URI", "/api/../admin"}, "held"},
		"encoded dots that lead out":  {[]string{"REQUEST_URI", "/api/%2e%2e/admin"}, "held"},
		"an encoding that is broken":  {[]string{"REQUEST_URI", "/api/%"}, "held"},
		"the path only in the query":  {[]string{"REQUEST_URI", "/?/api/x"}, "held"},
		"a path that begins the same": {[]string{"REQUEST_URI", "/apis/x"}, "held"},
		"the script's name":           {[]string{"SCRIPT_NAME", "/api/index.php"}, "none"},
	} {
		b := s.ask(append(session(strings.ReplaceAll(name, " ", "-")), c.params...)...)
		script := s.php.next()
		if got := script.params["FPM_GATE_LOCK"]; got != c.lock {
			t.Errorf("%s: FPM_GATE_LOCK is %q, want %q", name, got, c.lock)
		}
		script.end(page)
		b.want("")
	}
}

func TestReadersWaitForWhoIsAheadAndHoldNothing(t *testing.T) {
	s := newStand(t, func(o *Options) {
		read := o.Policy
		read.Mode = Read
		o.Routes = []Route{{Paths: []string{"/read"}, Policy: read}}
	})
	writer := s.ask(session("one")...)
	holder := s.php.next()
	var readers []*browser
	for range 3 {
		readers = append(readers, s.ask(append(session("one"), "SCRIPT_NAME", "/read")...))
	}
	s.waiters(3)
	s.php.none(t)
	holder.end(page)
	writer.want("")
	for range readers { // all at once
		s.php.next().end(page + "read")
	}
	for _, r := range readers {
		r.want("read")
	}
	s.unlocked()
}

func TestObserverLetsEverybodyThrough(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.Observe = true })
	first, second := s.ask(session("one")...), s.ask(session("one")...)
	a, b := s.php.next(), s.php.next()
	a.end(page + "x")
	b.end(page + "x")
	first.want("x")
	second.want("x")
	if got := s.Stats(); got.Observed != 1 || got.Acquired != 1 {
		t.Errorf("got %+v, want one that would have waited", got)
	}
	if !strings.Contains(s.log.String(), "would have waited") {
		t.Error("nothing is logged")
	}
}

func TestLockIsFreeBeforeTheResponseIsWhole(t *testing.T) {
	s := newStand(t, nil)
	b := s.ask(session("one")...)
	for range 50 {
		s.php.next().end(page + "x")
		b.want("x")
		// The browser has its response, and asks again: it must never wait for its own lock.
		if held := s.locks.Snapshot(); len(held) != 0 {
			t.Fatalf("the lock is still there: %+v", held)
		}
		b.again(session("one")...)
	}
	s.php.next().end(page)
	b.want("")
}

func TestScriptReleasesItsLockEarly(t *testing.T) {
	for name, c := range map[string]struct {
		edit    func(*Options)
		header  string
		release bool
	}{
		"by a header":               {nil, "FPM-Gate-Release: 1\r\n", true},
		"by a header in small":      {nil, "fpm-gate-release:1\r\n", true},
		"not by another value":      {nil, "FPM-Gate-Release: 0\r\n", false},
		"not without":               {nil, "", false},
		"by its headers":            {func(o *Options) { o.Policy.ReleaseOn = ReleaseOnHeaders }, "", true},
		"by both":                   {func(o *Options) { o.Policy.ReleaseOn = ReleaseOnHeaders }, "FPM-Gate-Release: 1\r\n", true},
		"by its headers, says no 0": {func(o *Options) { o.Policy.ReleaseOn = ReleaseOnHeaders }, "FPM-Gate-Release: 0\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, c.edit)
			first := s.ask(session("one")...)
			holder := s.php.next()
			second := s.ask(session("one")...)
			s.waiters(1)
			holder.send("X-A: a\r\n" + c.header + page + "begin")
			if c.release {
				s.php.next().end(page + "second")
				second.want("second")
			} else {
				time.Sleep(10 * time.Millisecond)
				s.php.none(t)
			}
			holder.end("end")
			got := first.response()
			if got.body != "beginend" || strings.Contains(strings.ToLower(got.header), "fpm-gate") || !strings.Contains(got.header, "X-A: a") {
				t.Errorf("got %+v, want all but the header that is ours", got)
			}
			if !c.release {
				s.php.next().end(page + "second")
				second.want("second")
			}
			s.unlocked()
		})
	}
}

func TestServerTimingTellsTheWait(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.ServerTiming = true })
	b := s.ask(session("one")...)
	s.php.next().end(page + "x")
	if got := b.response(); !strings.Contains(got.header, `Server-Timing: fpm-gate;desc="session lock held";dur=`) || got.body != "x" {
		t.Errorf("got %+v, want a Server-Timing header", got)
	}
	b.again()
	s.php.next().end(page + "x")
	if got := b.response(); strings.Contains(got.header, "Server-Timing") {
		t.Errorf("got %+v, want no Server-Timing without a session", got)
	}
}

// A login gives the session a new id. From the moment that the browser knows it, its requests meet the rest of the
// login there.
func TestNewSessionIDIsLockedBeforeTheBrowserHasIt(t *testing.T) {
	for name, params := range map[string][]string{"of a session": session("old"), "without a session": nil} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, nil)
			login := s.ask(params...)
			holder := s.php.next()
			holder.send("Set-Cookie: PHPSESSID=new; path=/\r\nSet-Cookie: other=x\r\n" + page + "part")
			if _, content, _, err := readRecord(login); err != nil || !strings.HasSuffix(string(content), "part") {
				t.Fatalf("got %q and %v", content, err)
			}
			next := s.ask(session("new")...)
			s.waiters(1)
			s.php.none(t)
			holder.end("")
			login.want("")
			s.php.next().end(page + "new")
			next.want("new")
			s.unlocked()
		})
	}
}

func TestCookieThatIsNoNewIDIsNotLocked(t *testing.T) {
	s := newStand(t, nil)
	b := s.ask(session("one")...)
	for _, cookie := range []string{"PHPSESSID=one", "PHPSESSID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0", "PHPSESSID=", "other=two"} {
		script := s.php.next()
		script.send("Set-Cookie: " + cookie + "\r\n" + page)
		if _, _, _, err := readRecord(b); err != nil {
			t.Fatal(err)
		}
		if held := s.locks.Snapshot(); len(held) != 1 {
			t.Errorf("%s: %d locks are held, want one", cookie, len(held))
		}
		script.end("x")
		b.want("")
		b.again(session("one")...)
	}
	s.php.next().end(page)
	s.unlocked()
}

func TestLongestHoldOutcomes(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.Expiry = 30 * time.Millisecond })
	first := s.ask(session("one")...)
	hanging := s.php.next()
	second := s.ask(session("one")...)
	s.php.next().end(page + "second")
	second.want("second")
	hanging.end(page + "first") // it is served all the same
	first.want("first")
	await(t, "the expiry is counted", func() bool { return s.Stats().Expired == 1 })
	if got := s.Stats().Aborted; got != 0 {
		t.Errorf("%d requests are counted as aborted", got)
	}
}

func TestWaiterWhoseWebServerHangsUpNeverReachesPHP(t *testing.T) {
	s := newStand(t, nil)
	first := s.ask(session("one")...)
	holder := s.php.next()
	leaving := s.ask(append(session("one"), "LEAVES", "1")...)
	s.waiters(1)
	staying := s.ask(session("one")...)
	s.waiters(2)
	leaving.Close()
	s.waiters(1)
	holder.end(page)
	first.want("")
	script := s.php.next()
	if script.params["LEAVES"] != "" {
		t.Error("the request of the web server that has gone reached PHP")
	}
	script.end(page + "x")
	staying.want("x")
	s.unlocked()
	await(t, "it is counted", func() bool { return s.Stats().HungUp == 1 })
}

// What a visitor has sent is run in its turn, as PHP-FPM alone does: a browser that has left shows no error. It can be
// rejected like any other request.
func TestWaiterThatWasLeftRuns(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "MOVE"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			first := s.ask(session("one")...)
			holder := s.php.next()
			left := s.ask(append(session("one"), "REQUEST_METHOD", method)...)
			s.waiters(1)
			next := s.ask(session("one")...)
			s.waiters(2)
			left.Close()
			time.Sleep(60 * time.Millisecond) // the hang-up is noticed by then
			s.waiters(2)
			holder.end(page)
			first.want("")
			script := s.php.next()
			if got := script.params["REQUEST_METHOD"] + " " + script.params["FPM_GATE_LOCK"]; got != method+" held" {
				t.Errorf("got %q, want the request that was left", got)
			}
			time.Sleep(60 * time.Millisecond)
			s.php.none(t) // it holds the lock
			script.die()
			s.php.next().end(page + "next")
			next.want("next")
			s.unlocked()
			await(t, "it is counted", func() bool { return s.Stats().HungUp == 1 })
		})
	}
}

func TestWaiterThatWasLeftIsRejectedAfterMaxWait(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWait = 100 * time.Millisecond })
	first := s.ask(session("one")...)
	holder := s.php.next()
	left := s.ask(append(session("one"), "REQUEST_METHOD", "POST")...)
	s.waiters(1)
	left.Close()
	s.waiters(0)
	await(t, "it is counted", func() bool { return s.Stats().Rejected == 1 })
	holder.end(page)
	first.want("")
	s.php.none(t)
	s.unlocked()
}

func TestScriptWhoseWebServerHasGoneKeepsItsLock(t *testing.T) {
	s := newStand(t, nil)
	first := s.ask(session("one")...)
	holder := s.php.next()
	second := s.ask(session("one")...)
	s.waiters(1)
	first.Close()
	time.Sleep(60 * time.Millisecond) // the hang-up is noticed by then
	s.php.none(t)
	holder.die() // the end of the script: its connection is closed
	s.php.next().end(page + "second")
	second.want("second")
	s.unlocked()
}

func TestScriptThatRunsOnForTooLongIsAbandoned(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.AbandonAfter = 20 * time.Millisecond })
	first := s.ask(session("one")...)
	holder := s.php.next()
	second := s.ask(session("one")...)
	s.waiters(1)
	first.Close()
	s.php.next().end(page + "second")
	second.want("second")
	await(t, "it is counted", func() bool { return s.Stats().Abandoned == 1 })
	holder.die()
}

func TestLogNamesNoSession(t *testing.T) {
	s := newStand(t, func(o *Options) { o.SlowWait, o.Policy.MaxWaiters = 0, 1 })
	first := s.ask(session("verysecretid")...)
	holder := s.php.next()
	second := s.ask(session("verysecretid")...)
	s.waiters(1)
	s.ask(session("verysecretid")...).wantStatus("429")
	holder.end(page)
	first.want("")
	s.php.next().end("Set-Cookie: PHPSESSID=othersecret\r\n" + page)
	second.want("")
	s.unlocked()
	await(t, "the wait is logged", func() bool { return strings.Contains(s.log.String(), "slow wait") })
	log := s.log.String()
	for _, secret := range []string{"secretid", "othersecret", "secret=1"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log tells %q:\n%s", secret, log)
		}
	}
	short := sessionlock.KeyFor(nil, "test", phpsession.LockName([]byte("verysecretid"))).Short()
	if !strings.Contains(log, short) || !strings.Contains(log, "/page") {
		t.Errorf("the log tells neither the lock %s nor the path:\n%s", short, log)
	}
}
