package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hiccups are shorter than the two seconds after which memcached counts as away. Each returns how long memcached did not
// answer.
var hiccups = []struct {
	name string
	do   func(*testing.T, *twins) time.Duration
}{
	{"memcached frozen for 300 ms", func(t *testing.T, p *twins) time.Duration {
		began := time.Now()
		mustDo(t, p.store.Freeze())
		time.Sleep(300 * time.Millisecond)
		mustDo(t, p.store.Thaw())
		return time.Since(began)
	}},
	{"memcached restarted", func(t *testing.T, p *twins) time.Duration {
		began := time.Now()
		p.store.Kill()
		mustDo(t, p.store.Start())
		return time.Since(began)
	}},
	{"the waiter's gate stopped for 300 ms, six times", func(t *testing.T, p *twins) time.Duration {
		for range 6 {
			mustDo(t, p.gates[1].Freeze())
			time.Sleep(300 * time.Millisecond)
			mustDo(t, p.gates[1].Thaw())
			time.Sleep(200 * time.Millisecond)
		}
		return 0
	}},
}

// longestHiccup leaves a gate a second to notice that memcached is back. On a busy machine a restart may take longer.
const longestHiccup = time.Second

// Sessions are held through one gate and waited for through another while something falters: no request gets a session next
// to its holder, and none is sent away, whatever on_store_failure says.
func TestAHiccupGivesNoLockAwayAndSendsNobodyAway(t *testing.T) {
	t.Parallel()
	for _, hiccup := range hiccups {
		for _, failure := range []string{"local", "reject", "pass"} {
			t.Run(hiccup.name+", "+failure, func(t *testing.T) {
				t.Parallel()
				const tries = 5
				for try := 1; ; try++ {
					s := beginHiccup(t, failure)
					took := hiccup.do(t, s.twins)
					if took <= longestHiccup {
						s.check(t)
						return
					}
					s.letGo(t)
					if try == tries {
						t.Fatalf("memcached was away for %v, in the last of %d tries: this machine is too busy for a hiccup", took, tries)
					}
					t.Logf("memcached was away for %v, which is no hiccup: once more", took)
				}
			})
		}
	}
}

// heldSessions are sessions that requests hold through one gate and wait for through another.
type heldSessions struct {
	*twins
	held, waiting []<-chan response
}

func beginHiccup(t *testing.T, failure string) *heldSessions {
	t.Helper()
	const sessions = 3
	// The lease outlives a restart that a busy machine draws out.
	s := &heldSessions{twins: newTwinsWithLease(t, "10s",
		fmt.Sprintf("lock {\n store = \"memcached\"\n max_wait = \"60s\"\n on_store_failure = %q\n }", failure))}
	for i := range sessions {
		mark, session := fmt.Sprintf("held%d", i), newSession()
		s.held = append(s.held, begin(s.sites[0], request{path: "/wait.php?mark=" + mark, session: session}))
		awaitMark(t, s.Rig, mark+".started")
		s.waiting = append(s.waiting, begin(s.sites[1], request{path: "/note.php?mark=notes&say=lock", session: session}))
	}
	time.Sleep(500 * time.Millisecond)
	return s
}

// letGo ends the scripts that hold the sessions, and returns what they and those that waited were answered.
func (s *heldSessions) letGo(t *testing.T) (held, waiting []response) {
	t.Helper()
	for i := range s.held {
		letGo(t, s.Rig, fmt.Sprintf("held%d", i))
	}
	for i := range s.held {
		held, waiting = append(held, <-s.held[i]), append(waiting, <-s.waiting[i])
	}
	return held, waiting
}

// check fails the test if a lock was given away, or a request sent away.
func (s *heldSessions) check(t *testing.T) {
	t.Helper()
	free := ask(s.sites[1], request{path: "/hello.php", session: newSession()}) // it comes in the middle, or just after
	if free.status != http.StatusOK {
		t.Errorf("a request of a free session got %+v", free)
	}
	for _, w := range s.waiting {
		select {
		case r := <-w:
			t.Fatalf("a request was answered while another host held its session: %+v", r)
		case <-time.After(300 * time.Millisecond):
		}
	}
	held, waiting := s.letGo(t)
	for i := range held {
		if held[i].status != http.StatusOK {
			t.Errorf("a holder got %+v", held[i])
		}
		if waiting[i].status != http.StatusOK {
			t.Errorf("a waiter got %+v", waiting[i])
		}
	}
	for _, g := range s.gates {
		if log := g.Log(); strings.Contains(log, "on this host only") || strings.Contains(log, "lock lost") {
			t.Errorf("a lock was held locally or lost:\n%s", log)
		}
	}
}

// A host gets another secret by mistake: both hosts say so, and check --probe does before the config is served.
func TestHostsThatDisagreeSaySo(t *testing.T) {
	t.Parallel()
	p := newTwins(t, inMemcached)
	for _, g := range p.gates {
		awaitLog(t, g.Server, "serving")
	}
	other := strings.Replace(p.gates[0].Config, `secret = "hush"`, `secret = "rush"`, 1)
	if other == p.gates[0].Config {
		t.Fatal("the config has no such secret")
	}
	_, out, _ := run(t, "check", "--probe", "--config", configFile(t, other))
	if !strings.Contains(out, "keeps the same locks in another way: secret") {
		t.Errorf("check --probe says:\n%s", out)
	}
	reload(t, p.gates[0], other)
	for _, g := range p.gates {
		awaitLog(t, g.Server, "hosts disagree about their locks")
	}
	awaitLog(t, p.gates[0].Server, "secret changed")
}
