package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// locking are the handlers whose sessions PHP itself locks: a script that was ended must leave no lock.
var locking = []string{"files", "memcached", "redis with locks", "user"}

// TestAStuckScriptIsEndedAsByPHPItself: PHP reports its own error, gives its lock back, and the worker lives on.
func TestAStuckScriptIsEndedAsByPHPItself(t *testing.T) {
	t.Parallel()
	for _, handler := range locking {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			for _, how := range []string{"sleep", "busy", "regex", "deaf"} {
				t.Run(how, func(t *testing.T) {
					t.Parallel()
					p := newPool(t, handler, rig.PHPOptions{Workers: 1})
					session := newSession()
					s := p.run(t, "/stuck.php?how="+how, session)
					awaitMark(t, p.Rig, s.mark+".started")
					w := s.find(&phpworker.Local{})
					if err := w.Interrupt(session); err != nil {
						t.Fatal(err)
					}
					if got, want := s.response(), "Maximum execution time"; !strings.Contains(got, want) {
						t.Errorf("got the response %q, want %q in it", got, want)
					}
					s.nc.Close()
					next := p.run(t, "/steps.php?steps=start", session)
					next.await(0)
					if got, want := next.find(&phpworker.Local{}).PID(), w.PID(); got != want {
						t.Errorf("the next request is served by process %d, want %d as before", got, want)
					}
					next.next(0)
					next.await(1) // session_start() did not wait
				})
			}
		})
	}
}

// TestADeafScriptIsEndedWithItsWorker: what waits in a socket, or in its shutdown function, goes on after PHP's limit.
func TestADeafScriptIsEndedWithItsWorker(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	port := silent.Addr().(*net.TCPAddr).Port
	for _, how := range []string{"read", "shutdown"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "files", rig.PHPOptions{Workers: 1})
			session := newSession()
			s := p.run(t, fmt.Sprintf("/stuck.php?how=%s&port=%d", how, port), session)
			awaitMark(t, p.Rig, s.mark+".started")
			w := s.find(&phpworker.Local{})
			if how == "read" {
				mustWaitFor(t, w, fmt.Sprintf("127.0.0.1:%d", port))
				mustWaitFor(t, s.find(startHelper(t, helperCaps).client), fmt.Sprintf("127.0.0.1:%d", port))
			}
			if err := w.Interrupt(session); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // in which PHP would have ended it
			if _, err := w.Session(); err != nil {
				t.Fatalf("the script has ended: %v", err)
			}
			if err := w.Terminate(""); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the worker has ended", func() bool {
				_, err := w.Session()
				return errors.Is(err, phpworker.ErrGone)
			})
			if err := w.Terminate(""); !errors.Is(err, phpworker.ErrGone) {
				t.Errorf("ending it once more: got %v, want %v", err, phpworker.ErrGone)
			}
			next := p.run(t, "/steps.php?steps=start", session)
			next.next(0)
			next.await(1) // session_start() did not wait
		})
	}
}

// mustWaitFor waits until the worker is seen to wait for an address.
func mustWaitFor(t *testing.T, w phpworker.Worker, address string) {
	t.Helper()
	var last phpworker.Activity
	defer func() { t.Logf("seen: %+v", last) }()
	eventually(t, "the worker is seen to wait for "+address, func() bool {
		var err error
		if last, err = w.Activity(); err != nil {
			t.Fatal(err)
		}
		return last.Target == address
	})
	if last.State != "sleeping" || last.Syscall == "" || last.Version == "" || last.Session.Status != phpworker.Active {
		t.Errorf("got %+v", last)
	}
}

// TestAnotherSessionIsNotEnded: a script that has gone on to another session than the one that was meant goes on.
func TestAnotherSessionIsNotEnded(t *testing.T) {
	t.Parallel()
	p := newPool(t, "files", rig.PHPOptions{})
	session := newSession()
	s := p.run(t, "/steps.php?steps=id,start", session)
	s.await(0)
	w := s.find(&phpworker.Local{})
	s.next(0)
	s.next(1)
	s.await(2)
	for _, end := range []func(string) error{w.Interrupt, w.Terminate} {
		if err := end(session); !errors.Is(err, phpworker.ErrSession) {
			t.Errorf("got %v, want %v", err, phpworker.ErrSession)
		}
	}
	s.next(2)
	if got := s.response(); !strings.HasSuffix(got, "steps\n") {
		t.Errorf("got %q", got)
	}
}

// TestNoOtherVisitorIsEverEnded: while a pool is busy with short requests, scripts are ended at the very moment in which
// they end by themselves, and their workers take up another visitor's request.
func TestNoOtherVisitorIsEverEnded(t *testing.T) {
	t.Parallel()
	ends := 500
	if os.Getenv("FPM_GATE_LONG") != "" {
		ends = 10000
	}
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		t.Run(network.Network, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "files", rig.PHPOptions{Workers: 4, Listen: network})
			var stop atomic.Bool
			var visitors sync.WaitGroup
			var visits atomic.Int64
			for range 4 {
				visitors.Go(func() {
					for !stop.Load() {
						n := visits.Add(1)
						got, err := p.visit(n, rand.IntN(500), func(net.Conn) {})
						if want := fmt.Sprintf("visitor %d\n", n); err != nil || !strings.HasSuffix(got, "\r\n\r\n"+want) {
							t.Errorf("got %q (%v), want %q", got, err, want)
							return
						}
					}
				})
			}
			sent, gone := p.endInTime(t, ends)
			stop.Store(true)
			visitors.Wait()
			t.Logf("%d visits; of %d ends %d were sent, and %d came too late", visits.Load(), ends, sent, gone)
			if sent == 0 || gone == 0 {
				t.Errorf("%d ends were sent and %d came too late: one of both was not tried", sent, gone)
			}
			// While PHP begins a request, it has no handler for SIGPROF for some microseconds: what is ended then takes its
			// worker along, and no one else's request.
			early := 0
			for line := range strings.Lines(p.PHP.Log()) {
				switch {
				case !strings.Contains(line, "exited on signal"):
				case strings.Contains(line, "SIGPROF"):
					early++
				default:
					t.Errorf("got %q in the log of PHP-FPM", line)
				}
			}
			t.Logf("SIGPROF took %d workers along", early)
			if most := 3 + ends/1000; early > most {
				t.Errorf("%d workers have died of SIGPROF, want %d at most", early, most)
			}
		})
	}
}

// visit asks for visit.php over a connection of its own. meanwhile is called when the request is sent.
func (p *pool) visit(n int64, us int, meanwhile func(net.Conn)) (string, error) {
	nc, err := net.Dial(p.PHP.Addr.Network, p.PHP.Addr.Address)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	if _, err := nc.Write(scriptRequest(p.Rig, fmt.Sprintf("/visit.php?n=%d&us=%d", n, us), "")); err != nil {
		return "", err
	}
	meanwhile(nc)
	_ = nc.SetReadDeadline(time.Now().Add(requestTimeout))
	return readResponse(nc)
}

// endInTime ends so many scripts of a few milliseconds, each at about the time of its own end. Those that have ended
// close their connections as soon as they can, so that their workers go on to others.
func (p *pool) endInTime(t *testing.T, ends int) (sent, gone int) {
	local := &phpworker.Local{}
	for n := range ends {
		us := 1000 + rand.IntN(2000)
		_, err := p.visit(-int64(n), us, func(nc net.Conn) {
			raw, err := nc.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Error(err)
				return
			}
			w := p.awaitWorker(t, local, raw)
			if w == nil {
				gone++
				return
			}
			defer w.Close()
			ended := make(chan struct{})
			go func() { // closes the connection at the end of the response
				defer close(ended)
				_ = nc.SetReadDeadline(time.Now().Add(requestTimeout))
				_, _ = readResponse(nc)
				_ = nc.Close()
			}()
			time.Sleep(time.Duration(rand.IntN(2*us)) * time.Microsecond)
			switch err := w.Interrupt(""); {
			case err == nil:
				sent++
			case errors.Is(err, phpworker.ErrGone), errors.Is(err, phpworker.ErrBusy): // busy: at a worker's very first request
				gone++
			default:
				t.Error(err)
			}
			<-ended
		})
		_ = err // the connection is closed already
	}
	return sent, gone
}

// awaitWorker finds the worker of a connection that may still be in the backlog; nil if it has served it already.
func (p *pool) awaitWorker(t *testing.T, f phpworker.Finder, raw syscall.RawConn) phpworker.Worker {
	for {
		w, err := f.Find(raw)
		switch {
		case err == nil:
			return w
		case errors.Is(err, phpworker.ErrGone):
			return nil
		case !errors.Is(err, phpworker.ErrWaiting):
			t.Error(err)
			return nil
		}
		time.Sleep(100 * time.Microsecond) // PHP-FPM needs the CPU too
	}
}
