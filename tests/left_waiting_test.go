package tests

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// leftRequests has a page hold its session, and clients send requests of that session and leave. A site starts tasks in
// that way, and visitors close a tab once they have sent a form. PHP-FPM alone runs what it has got.
func leftRequests(t *testing.T, p *passage) {
	for mark, site := range map[string]*rig.Site{"left-gated": p.gated, "left-straight": p.straight} {
		session := newSession()
		page := begin(site, request{path: "/turn.php?mark=" + mark + "&name=page&ms=0&wait=1", session: session})
		awaitMark(t, p.Rig, mark+".started")
		ctx, leave := context.WithCancel(t.Context())
		methods := []string{"POST", "DELETE"} // some web servers have three connections, one of which is the page's
		var left []<-chan response
		for _, method := range methods {
			left = append(left, begin(site, request{
				method: method, path: "/turn.php?mark=" + mark + "&name=" + method + "&ms=0", session: session, ctx: ctx,
				header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, body: strings.NewReader("a=1"),
			}))
		}
		eventually(t, "all of them wait", func() bool {
			if site == p.gated {
				return seriesValue(t, p.admin, `fpm_gate_lock_waiters{gate="www"}`) == float64(len(methods))
			}
			return !slices.ContainsFunc(methods, func(m string) bool { return !marked(p.Rig, mark+".came."+m) })
		})
		leave()
		for _, r := range left {
			<-r
		}
		time.Sleep(300 * time.Millisecond) // the gate has noticed by then
		letGo(t, p.Rig, mark)
		(<-page).mustBe(t, "1\n")
		eventually(t, "what was sent to "+mark+" is run", func() bool {
			ran := strings.Join(notes(t, p.Rig, mark), " ")
			return !slices.ContainsFunc(methods, func(m string) bool { return !strings.Contains(ran, "end:"+m) })
		})
		if r := ask(site, request{path: "/turn.php?mark=" + mark + "&name=last&ms=0", session: session}); r.body != "4\n" {
			t.Errorf("%s: got %q of the last, want 4: each has run once", mark, r.body)
		}
	}
}

// TestARequestIsLeftWhileItWaits for its session or for a connection. A request that only asks never runs then.
func TestARequestIsLeftWhileItWaits(t *testing.T) {
	t.Parallel()
	runs := map[string]bool{
		"GET": false, "HEAD": false, "OPTIONS": false, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "PROPFIND": true,
	}
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		for place, path := range map[string]string{
			"the session":  "/wait.php?session=1&mark=held",
			"a connection": "/wait.php?session=0&mark=held",
		} {
			t.Run(place, func(t *testing.T) {
				t.Parallel()
				block, admin := adminBlock(t)
				s := newStack(t, stackOptions{
					PHP:  rig.PHPOptions{Listen: network},
					Gate: rig.GateOptions{Listen: network, Config: block, Settings: `lock { max_wait = "50s" }`},
				}).limit(t, 1)
				session := newSession()
				held := s.begin(path, session)
				awaitMark(t, s.Rig, "held.started")
				ctx, leave := context.WithCancel(t.Context())
				var left []<-chan response
				for method := range runs {
					q := request{method: method, path: "/note.php?mark=ran&say=" + method, session: session, ctx: ctx}
					if place == "a connection" {
						q.session = newSession()
					}
					if runs[method] {
						q.body = strings.NewReader(strings.Repeat("x", 40_000)) // more than comes with the head
					}
					left = append(left, begin(s.Site, q))
				}
				series := `fpm_gate_lock_waiters{gate="www"}`
				if place == "a connection" {
					series = `fpm_gate_upstream_queue{gate="www"}`
				}
				waiting := func() float64 { return seriesValue(t, admin, series) }
				eventually(t, "all of them wait", func() bool { return waiting() == float64(len(runs)) })
				leave()
				for _, r := range left {
					<-r
				}
				eventually(t, "those that only ask wait no longer", func() bool { return waiting() == 5 })
				letGo(t, s.Rig, "held")
				(<-held).mustBe(t, "last\n")
				eventually(t, "none waits", func() bool { return waiting() == 0 })
				s.get("/note.php?mark=ran&say=last", session).mustBe(t, "last\n")
				eventually(t, "all have run", func() bool { return len(notes(t, s.Rig, "ran")) == 6 })
				for _, method := range notes(t, s.Rig, "ran") {
					if method != "last" && !runs[method] {
						t.Errorf("%s has run", method)
					}
				}
			})
		}
	})
}
