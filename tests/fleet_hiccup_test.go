package tests

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hiccups are shorter than the two seconds after which memcached counts as away.
var hiccups = []struct {
	name string
	do   func(*testing.T, *twins)
}{
	{"memcached frozen for 300 ms", func(t *testing.T, p *twins) {
		mustDo(t, p.store.Freeze())
		time.Sleep(300 * time.Millisecond)
		mustDo(t, p.store.Thaw())
	}},
	{"memcached restarted", func(t *testing.T, p *twins) {
		p.store.Kill()
		mustDo(t, p.store.Start())
	}},
	{"the waiter's gate stopped for 300 ms, six times", func(t *testing.T, p *twins) {
		for range 6 {
			mustDo(t, p.gates[1].Freeze())
			time.Sleep(300 * time.Millisecond)
			mustDo(t, p.gates[1].Thaw())
			time.Sleep(200 * time.Millisecond)
		}
	}},
}

// Sessions are held through one gate and waited for through another while something falters: no request gets a session next
// to its holder, and none is sent away, whatever on_store_failure says.
func TestAHiccupGivesNoLockAwayAndSendsNobodyAway(t *testing.T) {
	t.Parallel()
	for _, hiccup := range hiccups {
		for _, failure := range []string{"local", "reject", "pass"} {
			t.Run(hiccup.name+", "+failure, func(t *testing.T) {
				t.Parallel()
				const sessions = 3
				// The lease outlives a restart that a busy machine draws out.
				p := newTwinsWithLease(t, "10s", fmt.Sprintf("lock {\n store = \"memcached\"\n max_wait = \"60s\"\n on_store_failure = %q\n }", failure))
				var held, waiting []<-chan response
				for i := range sessions {
					mark, session := fmt.Sprintf("held%d", i), newSession()
					held = append(held, begin(p.sites[0], request{path: "/wait.php?mark=" + mark, session: session}))
					awaitMark(t, p.Rig, mark+".started")
					waiting = append(waiting, begin(p.sites[1], request{path: "/note.php?mark=notes&say=lock", session: session}))
				}
				time.Sleep(500 * time.Millisecond)
				hiccup.do(t, p)
				free := ask(p.sites[1], request{path: "/hello.php", session: newSession()}) // it comes in the middle, or just after
				if free.status != http.StatusOK {
					t.Errorf("a request of a free session got %+v", free)
				}
				for _, w := range waiting {
					select {
					case r := <-w:
						t.Fatalf("a request was answered while another host held its session: %+v", r)
					case <-time.After(300 * time.Millisecond):
					}
				}
				for i := range sessions {
					letGo(t, p.Rig, fmt.Sprintf("held%d", i))
				}
				for i := range sessions {
					if r := <-held[i]; r.status != http.StatusOK {
						t.Errorf("a holder got %+v", r)
					}
					if r := <-waiting[i]; r.status != http.StatusOK {
						t.Errorf("a waiter got %+v", r)
					}
				}
				for _, g := range p.gates {
					if log := g.Log(); strings.Contains(log, "on this host only") || strings.Contains(log, "lock lost") {
						t.Errorf("a lock was held locally or lost:\n%s", log)
					}
				}
			})
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
