package gate

import (
	"context"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// TestALockThatOutlivesItsRequestEndsOnceItCannotBeSeen: nothing else would end it before its expiry.
func TestALockThatOutlivesItsRequestEndsOnceItCannotBeSeen(t *testing.T) {
	for name, c := range map[string]struct{ id, header string }{
		"the request's id": {"one", ""},
		"a new id":         {"new", "Set-Cookie: PHPSESSID=new\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			b := s.ask(session("one")...)
			script := s.php.next()
			php.open("one")
			if c.header != "" {
				php.close("one")
			}
			script.end(c.header + page + "done")
			b.want("done")
			next := s.ask(session(c.id)...)
			s.waiters(1)
			s.php.none(t)
			php.lose(c.id)
			s.php.next().end(page + "next")
			next.want("next")
			s.unlocked()
			receive(t, "the end of the options", s.Configure(s.options(nil)))
		})
	}
}

// A script that goes on after its response is waited for as long as its session is open, and no longer than one that has
// not responded yet.
func TestShutdownWaitsForALockThatOutlivesItsRequest(t *testing.T) {
	for name, end := range map[string]func(*sessions, context.CancelFunc){
		"until it ends":    func(php *sessions, _ context.CancelFunc) { php.close("one") },
		"until it is over": func(_ *sessions, timeIsUp context.CancelFunc) { timeIsUp() },
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			b := s.ask(session("one")...)
			script := s.php.next()
			php.open("one")
			script.end(page + "done")
			b.want("done")
			b.Close()
			await(t, "no conn is there", func() bool { return s.Conns() == 0 })
			timeIsUp, done := s.shutdown(time.Millisecond)
			pending(t, "the session is open", done)
			end(php, timeIsUp)
			if err := receive(t, "the end of the shutdown", done); (err != nil) != (name == "until it is over") {
				t.Errorf("got %v", err)
			}
			s.unlocked()
		})
	}
}

// TestTheLastBytesWaitForNoAnswer: where a server has to be asked whether the script goes on with its session, the lock
// goes on until it has answered, and the response does not wait for that.
func TestTheLastBytesWaitForNoAnswer(t *testing.T) {
	for name, answers := range map[string][]sessionwatch.State{
		"closed":                    {sessionwatch.Closed},
		"not open":                  {sessionwatch.Shut},
		"kept elsewhere, it may be": {sessionwatch.Unseen},
		"no answer":                 {sessionwatch.Unknown},
		"open, and closed later":    {sessionwatch.Open, sessionwatch.Closed},
		"open, and no answer later": {sessionwatch.Open, sessionwatch.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			first := s.ask(session("asked")...)
			script := s.php.next()
			second := s.ask(session("asked")...)
			s.waiters(1)
			await(t, "the end of the session is wanted", func() bool { return php.is("asked", wanted) })
			script.end(page + "first")
			first.want("first")
			for _, answer := range answers {
				s.php.none(t)
				php.change("asked", answer)
			}
			s.php.next().end(page + "second")
			second.want("second")
			s.unlocked()
			receive(t, "the end of the options", s.Configure(s.options(nil)))
		})
	}
}

// A response may end before the goroutine has run that notifies its watch of a waiter.
func TestALockOutlivesItsRequestForAWaiterThatHasJustCome(t *testing.T) {
	for name, c := range map[string]struct{ waits, want bool }{"it waits": {true, true}, "none waits": {false, false}} {
		t.Run(name, func(t *testing.T) {
			m, key := sessionlock.NewManager(sessionlock.NewLocal()), sessionlock.Key{1}
			lock, err := m.Acquire(t.Context(), key, nil, sessionlock.Policy{}) // OnWaiter is never called
			if err != nil {
				t.Fatal(err)
			}
			if c.waits {
				go m.Acquire(t.Context(), key, nil, sessionlock.Policy{MaxWait: time.Hour})
				await(t, "a request waits", func() bool { return len(m.Snapshot()[0].Waiters) == 1 })
			}
			php := &sessions{all: map[string]*sessionState{}}
			w := &watch{hold: &hold{lock: lock}, session: php.Watch([]byte("asked"), nil)}
			if got := w.mayBeOpen(); got != c.want {
				t.Errorf("the session may be open: got %v, want %v", got, c.want)
			}
		})
	}
}

// A script that is still there holds its lock to its end if its session can no longer be seen.
func TestALockOfARequestSurvivesTheLossOfItsWatch(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	b := s.ask(session("one")...)
	script := s.php.next()
	php.open("one")
	next := s.ask(session("one")...)
	s.waiters(1)
	php.lose("one")
	time.Sleep(10 * time.Millisecond)
	s.php.none(t)
	script.end(page + "done")
	b.want("done")
	s.php.next().end(page + "next")
	next.want("next")
}

// TestTheLockOfANewIDOutlivesItsRequestToo: of a login or a first visit that goes on after fastcgi_finish_request().
func TestTheLockOfANewIDOutlivesItsRequestToo(t *testing.T) {
	for name, c := range map[string]struct {
		params []string
		end    func(*sessions, *stand)
	}{
		"a first visit":      {nil, func(php *sessions, _ *stand) { php.close("new") }},
		"another id":         {session("old"), func(php *sessions, _ *stand) { php.close("new") }},
		"until the shutdown": {nil, func(_ *sessions, s *stand) { s.outliving.end() }},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			b := s.ask(c.params...)
			s.php.next().end("Set-Cookie: PHPSESSID=new; path=/\r\n" + page + "done")
			b.want("done")
			next := s.ask(session("new")...)
			s.waiters(1)
			s.php.none(t)
			left := s.Configure(s.options(nil))
			c.end(php, s)
			s.php.next().end(page + "next")
			next.want("next")
			receive(t, "the end of the old options", left)
			s.unlocked()
		})
	}
}

func TestTheLockOfANewIDExpiresAfterItsRequest(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.Policy.Expiry = 50 * time.Millisecond })
	b := s.ask()
	s.php.next().end("Set-Cookie: PHPSESSID=new\r\n" + page + "done")
	b.want("done")
	await(t, "the watch is stopped", func() bool { return php.is("new", stopped) })
	s.unlocked()
	receive(t, "the end of the options", s.Configure(s.options(nil)))
}

// A new session that PHP has closed before it sends the header delays no request.
func TestANewIDWhoseSessionIsClosedIsFree(t *testing.T) {
	s, _ := newWatchedStand(t, nil)
	b := s.ask()
	script := s.php.next()
	script.send("Set-Cookie: PHPSESSID=new-shut\r\n" + page)
	await(t, "the response has begun", func() bool { return len(s.locks.Snapshot()) == 0 })
	s.serve(session("new-shut"))
	script.end("x")
	b.want("x")
}

func TestANewSessionIDIsWatchedTooFromItsCookieOn(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	login := s.ask(session("old")...)
	script := s.php.next()
	php.open("old")
	php.close("old") // session_regenerate_id(true)
	script.send("Set-Cookie: PHPSESSID=new\r\n" + page)
	await(t, "the new id is followed", func() bool { return php.is("new", func(w *sessionState) bool { return !w.stopped }) })
	next := s.ask(session("new")...)
	s.waiters(1)
	s.php.none(t)
	php.close("new")
	s.php.next().end(page + "next")
	next.want("next")
	script.end("x")
	login.want("x")
	s.unlocked()
}
