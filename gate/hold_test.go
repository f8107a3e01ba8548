package gate

import (
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// finish ends the response of a script that goes on, as fastcgi_finish_request() does.
func (s *script) finish(stdout string) {
	b := fcgi.AppendStream(nil, fcgi.TypeStdout, s.id, []byte(stdout))
	_, _ = s.conn.Write(fcgi.AppendEndRequest(b, s.id, 0, fcgi.StatusRequestComplete))
}

// newMeteredStand is a watched stand whose holds are counted.
func newMeteredStand(t *testing.T, edit func(*Options)) (*stand, *sessions, *ledger) {
	t.Helper()
	l := newLedger()
	s, php := newWatchedStand(t, func(o *Options) {
		o.Meter = l.meter
		if edit != nil {
			edit(o)
		}
	})
	return s, php, l
}

// TestAHoldEndsOnce: two causes that end a hold come at the same time, in all pairs. It is measured once, the lock is
// free, and nothing of it is left.
func TestAHoldEndsOnce(t *testing.T) {
	type stage struct {
		*stand
		php    *sessions
		script *script
	}
	causes := map[string]func(*stage){
		"the script ends":          func(s *stage) { s.script.finish("") },
		"PHP closes the session":   func(s *stage) { s.php.close("one") },
		"the session is not seen":  func(s *stage) { s.php.lose("one") },
		"an operator breaks it":    func(s *stage) { s.locks.Break(s.setup.Load().keyFor([]byte("one"))) },
		"the worker dies":          func(s *stage) { _ = s.script.conn.Close() },
		"the gate ends late holds": func(s *stage) { s.outliving.end() },
	}
	for one, end := range causes {
		for other, too := range causes {
			for _, finished := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, finished %v", one, other, finished), func(t *testing.T) {
					s, php, holds := newMeteredStand(t, nil)
					b := s.ask(session("one")...)
					at := &stage{s, php, s.php.next()}
					php.open("one")
					at.script.send(page)
					if finished {
						at.script.finish("x")
						b.want("x")
					}
					var both sync.WaitGroup
					for _, cause := range []func(*stage){end, too} {
						both.Go(func() {
							if finished || one != other {
								cause(at)
							}
						})
					}
					both.Wait()
					_ = at.script.conn.Close()
					php.close("one")
					s.unlocked()
					receive(t, "the end of the options", s.Configure(s.options(nil)))
					holds.mu.Lock()
					defer holds.mu.Unlock()
					if got := sum(holds.holds); got != 1 {
						t.Errorf("the hold was measured %d times: %v", got, maps.Clone(holds.holds))
					}
				})
			}
		}
	}
}

// TestAScriptIsAwaitedAsLongAsAHoldNeedsIt: of a script that goes on after its response, where nothing is seen of its
// sessions. Each of its locks ends by itself, and the connection is closed with the last.
func TestAScriptIsAwaitedAsLongAsAHoldNeedsIt(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		ends   []func(*sessions, *stand)
	}{
		"PHP closes the session": {"", []func(*sessions, *stand){func(php *sessions, _ *stand) {
			php.open("made-up")
			php.close("made-up")
		}}},
		"an operator breaks the lock": {"", []func(*sessions, *stand){func(_ *sessions, s *stand) {
			s.locks.Break(s.setup.Load().keyFor([]byte("made-up")))
		}}},
		"the gate ends": {"", []func(*sessions, *stand){func(_ *sessions, s *stand) { s.outliving.end() }}},
		"two sessions": {"Set-Cookie: PHPSESSID=presumed\r\n", []func(*sessions, *stand){
			func(php *sessions, _ *stand) { php.close("presumed") },
			func(_ *sessions, s *stand) { s.locks.Break(s.setup.Load().keyFor([]byte("made-up"))) },
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0") // over TCP a worker may be at work whenever its response has ended
			if err != nil {
				t.Fatal(err)
			}
			app := newPHPOn(t, l)
			s, php, holds := newMeteredStand(t, func(o *Options) { o.Upstream.Addrs = []netaddr.Addr{app.addr} })
			b := s.ask(session("made-up")...)
			script := app.next()
			script.finish(c.header + page + "x")
			b.want("x")
			for i, end := range c.ends {
				if got := len(s.locks.Snapshot()); got != len(c.ends)-i {
					t.Errorf("%d locks are held, want %d", got, len(c.ends)-i)
				}
				php.lose("made-up") // which ends nothing while the script is awaited
				end(php, s)
				await(t, "one lock less is held", func() bool { return len(s.locks.Snapshot()) == len(c.ends)-i-1 })
			}
			_ = script.conn.SetReadDeadline(time.Now().Add(patience))
			if _, _, _, err := readRecord(script.conn); err == nil { // that which the worker answers when it is back
				_, _, _, err = readRecord(script.conn)
				if err != io.EOF {
					t.Errorf("read: %v, want the connection closed", err)
				}
			}
			receive(t, "the end of the options", s.Configure(s.options(nil)))
			if got := sum(holds.holds); got != 1 {
				t.Errorf("the hold was measured %d times, want once", got)
			}
		})
	}
}
