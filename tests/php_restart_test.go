package tests

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What becomes of requests while PHP-FPM restarts.

// A request that waits for PHP-FPM's return keeps its lock, whose expiry has not begun, and its place before the next one
// of its session.
func TestRequestsAwaitPHPFPMsReturn(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStackOf(t, rig.PHPOptions{Listen: network}, `unreachable_wait = "29s"`, `lock { expiry = "3s" }`+queueRoutes(1))
		if err := s.PHP.Stop(); err != nil {
			t.Fatal(err)
		}
		session := newSession()
		answers := []<-chan response{begin(s.Site, request{
			method: "POST", path: "/note.php?mark=order&say=0", body: strings.NewReader("x"), session: session,
		})}
		awaitLog(t, s.Gate.Server, "PHP-FPM is away; requests wait for it")
		answers = append(answers, s.begin("/note.php?mark=order&say=1", session))
		s.awaitQueue(t, session, 1)
		answers = append(answers, s.begin("/note.php?mark=other&say=2", newSession()))
		time.Sleep(3200 * time.Millisecond) // longer than the expiry, which in turn is longer than a script takes
		if err := s.PHP.Start(); err != nil {
			t.Fatal(err)
		}
		for i, answer := range answers {
			(<-answer).mustBe(t, fmt.Sprintf("%d\n", i))
		}
		if got := notes(t, s.Rig, "order"); strings.Join(got, " ") != "0 1" {
			t.Errorf("got %q, want 0 and then 1", got)
		}
		awaitLog(t, s.Gate.Server, "PHP-FPM is back")
		if strings.Contains(s.Gate.Log(), "expired") {
			t.Error("a lock has expired while its request waited for PHP-FPM")
		}
	})
}

// Workers that are told to quit end their scripts. Meanwhile requests gather in the backlog, and are sent again.
func TestRestartsOfPHPFPMLoseNoRequest(t *testing.T) {
	t.Parallel()
	for name, upstream := range map[string]string{
		"connections are used again": "", "connections serve one request": `reuse = "0s"`,
		"requests queue in the gate": "max_connections = 4",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStackOf(t, rig.PHPOptions{Global: "process_control_timeout = 30s"},
				"unreachable_wait = \"25s\"\n"+upstream, `lock { max_wait = "30s" }`)
			v := startVisits(s.Site)
			restarted := v.restart(t, s, func(n int) {
				mark := fmt.Sprint("slow-", n)
				slow := s.hold(t, "", mark)
				stop(t, s, syscall.SIGQUIT)
				v.await(t, 40)
				letGo(t, s.Rig, mark)
				(<-slow).mustBe(t, "last\n")
			})
			v.reload(t, s)
			v.end(t, s)
			for _, f := range v.failures {
				t.Error(f)
			}
			t.Logf("%d requests; the longest restart took %v, the longest answer %v", v.sent.Load(), restarted, v.longest)
		})
	}
}

// Scripts that PHP-FPM kills are lost. Whatever it does, none runs twice.
func TestRestartsOfPHPFPMRunNoRequestTwice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		network rig.Addr
		sig     syscall.Signal
	}{
		{"SIGTERM", rig.Unix, syscall.SIGTERM},
		{"SIGTERM over TCP", rig.TCP, syscall.SIGTERM},
		{"SIGQUIT without process_control_timeout", rig.Unix, syscall.SIGQUIT},
		{"SIGQUIT over TCP", rig.TCP, syscall.SIGQUIT},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStackOf(t, rig.PHPOptions{Listen: c.network}, `unreachable_wait = "25s"`, `lock { max_wait = "30s" }`)
			v := startVisits(s.Site)
			v.restart(t, s, func(int) { stop(t, s, c.sig) })
			v.reload(t, s)
			v.end(t, s)
			t.Logf("%d requests, %d of them lost", v.sent.Load(), len(v.failures))
		})
	}
}

// visits is what 200 requests a second get from a site, GETs and POSTs of ten sessions.
type visits struct {
	stop    chan struct{}
	running sync.WaitGroup
	due     atomic.Int64 // every 5 ms one
	sent    atomic.Int64

	mu       sync.Mutex
	failures []string
	longest  time.Duration
}

// visitMark is the mark of the scripts that visits run.
const visitMark = "visits"

func startVisits(site *rig.Site) *visits {
	const most = 500 // under way at once: a machine that is too busy for 200 a second gets fewer
	v := &visits{stop: make(chan struct{})}
	places := make(chan struct{}, most)
	sessions := make([]string, 10)
	for i := range sessions {
		sessions[i] = newSession()
	}
	v.running.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-v.stop:
				return
			case <-tick.C:
			}
			v.due.Add(1)
			select {
			case places <- struct{}{}:
			default:
				continue
			}
			n := v.sent.Add(1)
			q := request{path: fmt.Sprintf("/note.php?mark=%s&say=%d", visitMark, n), session: sessions[n%10]}
			if n%2 == 0 {
				q.method, q.body = "POST", strings.NewReader("a=b")
			}
			v.running.Go(func() {
				v.visit(site, q, fmt.Sprintf("%d\n", n))
				<-places
			})
		}
	})
	return v
}

func (v *visits) visit(site *rig.Site, q request, want string) {
	begun := time.Now()
	r := ask(site, q)
	took := time.Since(begun)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.longest = max(v.longest, took)
	if err := r.failure(); err != nil || r.body != want {
		v.failures = append(v.failures, fmt.Sprintf("%s %s: got %q (%v) after %v", q.method, q.path, r.body, err, took))
	}
}

// await waits until n more requests are due. They have been sent, or as many as may be are under way.
func (v *visits) await(t *testing.T, n int64) {
	t.Helper()
	until := v.due.Load() + n
	eventually(t, "requests are due", func() bool { return v.due.Load() >= until })
}

// stop signals PHP-FPM to end.
func stop(t *testing.T, s *stack, sig syscall.Signal) {
	t.Helper()
	if err := s.PHP.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// restart has PHP-FPM stopped three times and starts it again. It returns the longest restart.
func (v *visits) restart(t *testing.T, s *stack, stop func(n int)) (longest time.Duration) {
	t.Helper()
	v.await(t, 100)
	for n := range 3 {
		begun := time.Now()
		stop(n)
		<-s.PHP.Exited()
		if err := s.PHP.Start(); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(begun))
		v.await(t, 100)
	}
	return longest
}

// reload has PHP-FPM reload, at which it keeps its sockets.
func (v *visits) reload(t *testing.T, s *stack) {
	t.Helper()
	if err := s.PHP.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.PHP.Server, "using inherited socket")
	v.await(t, 100)
}

// end ends the visits, and fails the test if a request ran twice.
func (v *visits) end(t *testing.T, s *stack) {
	t.Helper()
	close(v.stop)
	v.running.Wait()
	ran := make(map[string]bool)
	for _, n := range notes(t, s.Rig, visitMark) {
		if ran[n] {
			t.Errorf("request %s ran twice", n)
		}
		ran[n] = true
	}
}
