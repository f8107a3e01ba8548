package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// place is a way in which PHP may keep its sessions.
type place struct {
	handler string            // of the gate's config
	ini     map[string]string // of PHP, where it differs from that
	how     string            // of place.php
	fits    bool              // it is where the gate watches
}

// settings are PHP's.
func (p place) settings(t *testing.T) map[string]string {
	ini := map[string]string{}
	for key, value := range p.ini {
		if ini[key] = value; value == elsewhere {
			ini[key] = t.TempDir()
		}
	}
	return ini
}

var places = map[string]place{
	"files":                            {handler: "files", how: "plain", fits: true},
	"files in another folder":          {handler: "files", how: "plain", ini: map[string]string{"session.save_path": elsewhere}},
	"files, the application's folder":  {handler: "files", how: "elsewhere"},
	"files, the application's own":     {handler: "files", how: "own"},
	"memcached":                        {handler: "memcached", how: "plain", fits: true},
	"memcached, sess_locking off":      {handler: "memcached", how: "plain", ini: map[string]string{"memcached.sess_locking": "0"}},
	"memcached, another prefix":        {handler: "memcached", how: "plain", ini: map[string]string{"memcached.sess_prefix": "shop."}},
	"memcached, the application's own": {handler: "memcached", how: "own"},
}

// elsewhere stands for a folder of PHP's that the gate does not know.
const elsewhere = "elsewhere"

// TestASessionThatIsKeptElsewhereIsParkedAllTheSame: with each way to keep sessions, strict mode on and off, and after
// visitors have sent ids that they made up, no update is lost, and where PHP keeps them elsewhere than the config says, no
// script gives its turn away, and that is reported once.
func TestASessionThatIsKeptElsewhereIsParkedAllTheSame(t *testing.T) {
	t.Parallel()
	for name, p := range places {
		for _, strict := range []string{"0", "1"} {
			t.Run(name+", strict mode "+strict, func(t *testing.T) {
				t.Parallel()
				ini := p.settings(t)
				ini["session.use_strict_mode"] = strict
				s := newWatchedStack(t, p.handler, `open_within = "20ms"`, stackOptions{PHP: rig.PHPOptions{Workers: 10, INI: ini}})
				path := "/place.php?how=" + p.how + "&before=40&ms=10"
				for range 20 {
					s.get(path, newSession()) // a stale cookie, or one that was made up
				}
				session := s.newSession(t, path)
				const n = 24
				running, _, responses := s.witness(t, "/place.php", "", crowd(s.Site, path, session, n))
				for _, r := range responses {
					if err := r.failure(); err != nil {
						t.Error(err)
					}
				}
				s.get(path, session).mustBe(t, fmt.Sprintln(n+2))
				if !p.fits && running > 2 { // one comes while another goes
					t.Errorf("%d scripts of the session ran at once, want them parked", running)
				}
				reports := strings.Count(s.Gate.Log(), "no session of this gate was ever seen opened in")
				if want := map[bool]int{false: 1}[p.fits]; reports != want {
					t.Errorf("the log says %d times that no session was seen, want %d", reports, want)
				}
			})
		}
	}
}

// newSession has PHP make a session, and counts in it.
func (s *stack) newSession(t *testing.T, path string) string {
	t.Helper()
	r := s.get(path, "")
	r.mustBe(t, "1\n")
	id, _, _ := strings.Cut(r.header.Get("Set-Cookie"), ";")
	_, id, _ = strings.Cut(id, "=")
	return id
}

// TestAMisfitIsReportedEverywhere an operator looks: the log, the metrics, the locks page, readiness and check --probe.
// Once the config fits it is gone.
func TestAMisfitIsReportedEverywhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind, says string
		ini        map[string]string
		session    string // of the gate's session block that is wrong
	}{
		"another folder": {
			kind: "not_opened", says: "no session of this gate was ever seen opened in /tmp",
			session: "handler = \"files\"\n save_path = \"/tmp\"\n watch = \"files\"",
		},
		"another cookie": {
			kind: "cookie_name", says: `cookies look like a session's: MoodleSession`,
			ini: map[string]string{"session.name": "MoodleSession"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stack{Rig: newRig(t, "nginx", "php-fpm")}
			config, admin := adminBlock(t)
			s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{INI: c.ini})
			s.Gate = startGate(t, s.Rig, rig.GateOptions{Upstream: s.PHP.Addr, Settings: "session {\n" + c.session + "\n}", Config: config})
			s.Site = &rig.Site{FastCGI: s.Gate.Addr}
			s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
			visit := func(session string) {
				t.Helper()
				if r := ask(s.Site, request{path: "/work.php", session: session, header: map[string]string{"Cookie": "MoodleSession=" + session}}); r.failure() != nil {
					t.Fatal(r.failure())
				}
			}
			probe := func() string {
				t.Helper()
				_, stdout, _ := run(t, "check", "--probe", "--config", s.Gate.ConfigFile())
				return stdout
			}
			metric := fmt.Sprintf("fpm_gate_session_misfit{gate=\"www\",kind=%q} ", c.kind)
			for name, page := range map[string]string{"log": s.Gate.Log(), "locks": admin.get(t, "/locks"), "check": probe()} {
				if strings.Contains(page, c.says) {
					t.Errorf("%s reports a misfit before there is any: %s", name, page)
				}
			}
			if text := admin.get(t, "/metrics"); !strings.Contains(text, metric+"0\n") {
				t.Errorf("the metrics lack %s0", metric)
			}
			for range 25 {
				visit(newSession())
			}
			unquoted := strings.ReplaceAll(admin.get(t, "/readyz"), `\"`, `"`)
			for name, page := range map[string]string{"locks": admin.get(t, "/locks"), "readyz": unquoted, "check": probe()} {
				if !strings.Contains(page, c.says) {
					t.Errorf("%s does not report it: %s", name, page)
				}
			}
			if text := admin.get(t, "/metrics"); !strings.Contains(text, metric+"1\n") {
				t.Errorf("the metrics lack %s1", metric)
			}
			if got := strings.Count(s.Gate.Log(), c.says); got != 1 {
				t.Errorf("the log reports it %d times, want once", got)
			}
			if strings.Contains(s.Gate.Log(), sessionPrefix) {
				t.Error("the log tells a session id")
			}
		})
	}
}

// TestUploadProgressLosesNoUpdate: PHP opens and closes the session while it takes an upload whose progress it keeps, so
// the gate's lock may end before the script begins. Then one request at most waits in PHP.
func TestUploadProgressLosesNoUpdate(t *testing.T) {
	t.Parallel()
	s := newWatchedStack(t, "files", "", stackOptions{PHP: rig.PHPOptions{Workers: 10, INI: map[string]string{"session.upload_progress.enabled": "1"}}})
	session := s.newSession(t, "/work.php")
	file := filepath.Join(s.sessions, "sess_"+session)
	const rounds, others = 5, 6
	for range rounds {
		body := "--x\r\nContent-Disposition: form-data; name=\"PHP_SESSION_UPLOAD_PROGRESS\"\r\n\r\nup\r\n" +
			"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n" + strings.Repeat("a", 900_000) + "\r\n--x--\r\n"
		upload := begin(s.Site, request{
			method: "POST", path: "/work.php?ms=50", session: session, body: strings.NewReader(body), length: int64(len(body)),
			header: map[string]string{"Content-Type": "multipart/form-data; boundary=x"},
		})
		_, waiting, responses := s.witness(t, "/work.php", file, append(crowd(s.Site, "/work.php?ms=20", session, others), upload))
		for _, r := range responses {
			if err := r.failure(); err != nil {
				t.Error(err)
			}
		}
		// PHP opens and closes the session while it reads the upload, so a request may enter in between, and on a busy
		// machine another one after it.
		if waiting > others/2 {
			t.Errorf("%d workers waited for the session at once, want %d at most", waiting, others/2)
		}
		t.Logf("%d workers waited for the session at most", waiting)
	}
	s.get("/count.php", session).mustBe(t, fmt.Sprintln(1+rounds*(others+1)))
}

// TestMadeUpIDsTeachNothing: in strict mode PHP opens no session of an id that it does not know, so a visitor who sends
// such ids must not make a script look as if it used no sessions.
func TestMadeUpIDsTeachNothing(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		for _, strict := range []string{"0", "1"} {
			t.Run("strict mode "+strict, func(t *testing.T) {
				t.Parallel()
				ini := map[string]string{"session.use_strict_mode": strict}
				s := newWatchedStack(t, handler, patientWithin, stackOptions{PHP: rig.PHPOptions{Workers: 10, INI: ini}})
				const path, n = "/place.php?how=plain&before=30", 20
				for range 6 {
					s.get(path, newSession()).mustBe(t, "1\n")
				}
				session := s.newSession(t, path)
				expired := s.newSession(t, path)
				if s.sessions != "" {
					if err := os.Remove(filepath.Join(s.sessions, "sess_"+expired)); err != nil {
						t.Fatal(err)
					}
				}
				for range 6 { // with the id of a session that PHP has kept here, and has no more
					s.get(path, expired)
				}
				running, waiting, responses := s.witness(t, "/place.php", filepath.Join(s.sessions, "sess_"+session), crowd(s.Site, path, session, n))
				for _, r := range responses {
					if err := r.failure(); err != nil {
						t.Error(err)
					}
				}
				if running > 3 || waiting > 1 {
					t.Errorf("%d scripts ran at once, and %d waited in PHP, want them parked", running, waiting)
				}
				s.get(path, session).mustBe(t, fmt.Sprintln(n+2))
			})
		}
	})
}

// TestAFinishedScriptKeepsASessionThatIsElsewhere: with each way to keep sessions no update is lost when scripts work on
// after fastcgi_finish_request(), which write their session when they end.
func TestAFinishedScriptKeepsASessionThatIsElsewhere(t *testing.T) {
	t.Parallel()
	for name, p := range places {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newWatchedStack(t, p.handler, "", stackOptions{PHP: rig.PHPOptions{Workers: 6, INI: p.settings(t)}})
			path := "/place.php?after=20&how=" + p.how
			session := s.newSession(t, path)
			const n = 8
			for i := range n {
				s.get(path, session).mustBe(t, fmt.Sprintln(i+2)) // each as soon as the one before is answered
			}
			for _, r := range crowd(s.Site, path, session, n) {
				if err := (<-r).failure(); err != nil {
					t.Error(err)
				}
			}
			s.get(path, session).mustBe(t, fmt.Sprintln(2*n+2))
		})
	}
}
