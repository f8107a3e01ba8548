package gate

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/phpworker"
)

// holders returns the holds of all locks of a stand.
func (s *stand) holders() (all []*hold) {
	for _, state := range s.locks.Snapshot() {
		if h, ok := s.locks.Holder(state.Key, state.Token).(*hold); ok {
			all = append(all, h)
		}
	}
	return all
}

// TestAScriptIsEndedOnce: though its request has two locks, for the id that it came with and for the one that it sets,
// and though both expire while operators ask for its end, too.
func TestAScriptIsEndedOnce(t *testing.T) {
	w := newFakeWorker()
	w.interrupted, w.terminated = make(chan struct{}, 99), make(chan struct{}, 99)
	s := newWorkerStand(t, w, func(o *Options) { o.Policy.TerminateGrace = time.Minute })
	b := s.ask(session("one")...)
	script := s.php.next()
	script.send("Set-Cookie: PHPSESSID=two\r\n" + page)
	await(t, "the request has both locks", func() bool { return len(s.holders()) == 2 })
	var asked sync.WaitGroup
	var accepted atomic.Int32
	for n := range 8 {
		for _, h := range s.holders() {
			reason := byOperator
			if n%2 == 0 {
				reason = "expiry"
			}
			asked.Go(func() {
				if _, err := h.terminate(reason); !errors.Is(err, ErrNoScript) {
					accepted.Add(1)
				}
			})
		}
	}
	receive(t, "the script is interrupted", w.interrupted)
	script.end("PHP's own error")
	b.want("PHP's own error")
	asked.Wait()
	if n := accepted.Load(); n != 1 || len(w.interrupted) != 0 || len(w.terminated) != 0 {
		t.Errorf("%d attempts were accepted, and the worker got %d and %d signals more, want one attempt with one signal",
			n, len(w.interrupted), len(w.terminated))
	}
}

// TestAnAttemptInVainKeepsNoOtherFromEndingTheScript, of either lock of its request.
func TestAnAttemptInVainKeepsNoOtherFromEndingTheScript(t *testing.T) {
	w := newFakeWorker()
	w.failure = phpworker.ErrRights
	s := newWorkerStand(t, w, func(o *Options) { o.Policy.TerminateGrace = time.Minute })
	b := s.ask(session("one")...)
	script := s.php.next()
	script.send("Set-Cookie: PHPSESSID=two\r\n" + page)
	await(t, "the request has both locks", func() bool { return len(s.holders()) == 2 })
	var asked sync.WaitGroup
	for range 20 {
		for _, h := range s.holders() {
			asked.Go(func() { _, _ = h.terminate(byOperator) })
		}
	}
	asked.Wait()
	w.mu.Lock()
	w.failure = nil
	w.mu.Unlock()
	holders := s.holders()
	for n, h := range holders { // the second finds that the first has begun
		ended := make(chan error, 1)
		go func() {
			_, err := h.terminate(byOperator)
			ended <- err
		}()
		if n == 0 {
			receive(t, "the script is interrupted", w.interrupted)
			continue
		}
		if err := receive(t, "the other attempt", ended); !errors.Is(err, ErrNoScript) {
			t.Errorf("got %v, want %v", err, ErrNoScript)
		}
	}
	script.end("over")
	b.want("over")
	if h := holders[1]; h.terminating {
		t.Error("the lock that did not end the script says that it does")
	}
}

// TestASignalNeverMeetsTheNextRequest, though it may come over the same connection to the same worker: the end of a
// request waits until the signal is sent.
func TestASignalNeverMeetsTheNextRequest(t *testing.T) {
	w := newFakeWorker()
	sending, send := make(chan struct{}), make(chan struct{})
	w.signaled = func() {
		sending <- struct{}{}
		<-send
	}
	s := newWorkerStand(t, w, func(o *Options) {
		o.Upstream.MaxConnections = 1
		o.Policy.OnExpiry, o.Policy.Expiry, o.Policy.TerminateGrace = OverdueTerminate, 20*time.Millisecond, time.Minute
	})
	for range 20 {
		b := s.ask(session("one")...)
		script := s.php.next()
		receive(t, "the script is about to be interrupted", sending)
		script.end(page + "by itself")
		next := s.ask("HTTP_X", "without a session")
		time.Sleep(5 * time.Millisecond) // in which the next request would come
		s.php.none(t)
		send <- struct{}{}
		receive(t, "the signal", w.interrupted)
		b.want("by itself")
		s.php.next().end(page + "next")
		next.want("next")
	}
	if log := s.log.String(); strings.Contains(log, "cannot be terminated") {
		t.Error("a script that had ended counts as one that could not be ended")
	}
}

// TestAWorkerThatIsNotFoundIsGivenUpInTime: before the lock ends by itself.
func TestAWorkerThatIsNotFoundIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	w := newFakeWorker()
	w.failure = phpworker.ErrWaiting
	s := newWorkerStand(t, w, func(o *Options) { o.Policy.TerminateGrace = time.Minute })
	b := s.ask(session("one")...)
	script := s.php.next()
	await(t, "the request has its lock", func() bool { return len(s.holders()) == 1 })
	began := time.Now()
	_, err := s.holders()[0].terminate("expiry")
	if took := time.Since(began); !errors.Is(err, phpworker.ErrWaiting) || took > patience/2 {
		t.Errorf("got %v after %v", err, took)
	}
	if got := s.Stats(); got.Unterminated != 1 || got.Interrupted != 0 || got.Terminated != 0 {
		t.Errorf("got %d, %d and %d scripts ended or not", got.Interrupted, got.Terminated, got.Unterminated)
	}
	script.end(page + "goes on")
	b.want("goes on")
}

// TestALineAboutAScriptThatWasEndedIsAboutThatScript, though the conn has its next request by the time that the gate
// notices the end, and the memory of the script's own request has been used again.
func TestALineAboutAScriptThatWasEndedIsAboutThatScript(t *testing.T) {
	for by, c := range map[string]struct {
		grace time.Duration
		end   func(*script)
	}{
		"PHP's time limit": {time.Minute, func(s *script) { s.end("PHP's own error") }},
		"SIGTERM":          {0, (*script).die},
	} {
		t.Run(by, func(t *testing.T) {
			w := newFakeWorker()
			var over atomic.Bool
			next := make(chan struct{})
			w.reading = func() {
				if over.Load() {
					<-next
				}
			}
			s := newWorkerStand(t, w, func(o *Options) { o.Policy.TerminateGrace = c.grace })
			b := s.ask(append(session("one"), "REQUEST_URI", "/its/own", "SCRIPT_FILENAME", "/srv/own.php")...)
			ended := s.php.next()
			holder := s.holders()[0]
			var asked sync.WaitGroup
			asked.Go(func() { _, _ = holder.terminate(byOperator) })
			receive(t, "the script is interrupted", w.interrupted)
			if c.grace == 0 {
				receive(t, "the worker is ended", w.terminated)
			}
			over.Store(true) // a look at the worker lasts until the next request is there
			c.end(ended)
			b.response()
			b.again(append(session("one"), "REQUEST_URI", "/another", "SCRIPT_FILENAME", "/srv/any.php")...)
			another := s.php.next()
			over.Store(false)
			close(next)
			asked.Wait()
			another.end(page)
			b.want("")
			line := regexp.MustCompile(`script terminated by an operator: .*method=GET path=/its/own script=/srv/own.php .*by=`)
			if !line.MatchString(s.log.String()) {
				t.Errorf("no line of the log is %q", line)
			}
		})
	}
}
