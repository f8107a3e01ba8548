package supervisor

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestAReloadThatFailsChangesNothing has each step of a reload fail, one after the other: what was served is served, and
// nothing else is open. Then the same config is served.
func TestAReloadThatFailsChangesNothing(t *testing.T) {
	before := block("stays", "unix:/stays", shared, watched) + block("moves", "unix:/moves") + block("goes", "unix:/goes") +
		stores(1) + operatorsAt("unix:/admin")
	for name, c := range map[string]struct {
		after string
		steps int
		fails []string // in the order of the steps
	}{
		"gates are added": {before + block("new", "unix:/new") + block("more", "systemd:more"), 2,
			[]string{"unix:/new", "systemd:more"}},
		"a gate moves": {strings.Replace(before, "unix:/moves", "unix:/there", 1), 1, []string{"unix:/there"}},
		"another store": {strings.Replace(before, stores(1), stores(2), 1), 1,
			[]string{"store [127.0.0.1:2]"}},
		"the admin moves": {strings.Replace(before, "unix:/admin", "127.0.0.1:9", 1), 1, []string{"127.0.0.1:9"}},
		"all of it": {block("stays", "unix:/stays", shared, watched) + block("moves", "unix:/there") + stores(2) +
			block("new", "systemd:new", watched) + block("last", "unix:/last") + operatorsAt("unix:/there.admin"), 5,
			[]string{"store [127.0.0.1:2]", "unix:/there.admin", "unix:/there", "systemd:new", "unix:/last"}},
	} {
		for n, step := range c.fails {
			t.Run(name+", "+step, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					p := begin(w, before)
					open, gates, since := w.isOpen(), p.servedGates(), p.State().Since
					time.Sleep(time.Second)
					w.failAt = len(w.steps) + n + 1
					p.reload(c.after)
					mustBe(t, "the step that failed", w.steps[len(w.steps)-1], step)
					mustBe(t, "what is open", w.isOpen(), open)
					mustBe(t, "gates", p.servedGates(), gates)
					if s := p.State(); !s.ReloadFailed || s.Since != since || w.stores[0].retired || len(w.changed) > 0 || len(w.levels) > 0 {
						t.Errorf("got %+v, store retired %v, changed %v and levels %v, want the generation before as it was",
							s, w.stores[0].retired, w.changed, w.levels)
					}
					w.mustLog("cannot apply config, keeping the running one", "cannot open "+step)
					w.mustNotLog("reloaded")
					mustBe(t, "state", lastOf(w.notified()),
						"READY=1\nSTATUS=gates: 3, connections: 3; config file invalid, still serving the previous one")
					w.failAt = 0
					p.mustReload(c.after)
					w.mustLog("reloaded")
					if s := p.State(); !s.Since.After(since) || strings.Contains(lastOf(w.notified()), "invalid") {
						t.Errorf("got %+v and %q, want the next generation", s, lastOf(w.notified()))
					}
				})
			})
		}
		t.Run(name+", no failure", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, before)
				had := len(w.steps)
				p.mustReload(c.after)
				if got := strings.Join(w.steps[had:], " "); got != strings.Join(c.fails, " ") {
					t.Errorf("got the steps %s, want %s: those that fail above", got, c.fails)
				}
			})
		})
	}
}

func lastOf(all []string) string { return all[len(all)-1] }

// TestAConfigThatIsRefusedOpensNothing, whether it is invalid or this machine cannot serve it.
func TestAConfigThatIsRefusedOpensNothing(t *testing.T) {
	for name, c := range map[string]struct {
		fails  string
		text   string
		report bool
		log    string
	}{
		"invalid":         {"", "gate \"x\" {}", true, "invalid config, keeping the running one"},
		"unreadable":      {"Load", "", true, "invalid config, keeping the running one"},
		"not served here": {"Judge", block("b", "unix:/b"), false, "cannot apply config, keeping the running one"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, block("a", "unix:/a"))
				steps, gates := len(w.steps), p.servedGates()
				why := errors.New("something is wrong")
				w.failing(c.fails, why)
				p.reload(c.text)
				mustBe(t, "gates", p.servedGates(), gates)
				if len(w.steps) != steps || !p.State().ReloadFailed || (len(w.reports) == 1) != c.report {
					t.Errorf("got the steps %v, failed %v and the reports %v", w.steps, p.State().ReloadFailed, w.reports)
				}
				if c.fails != "" {
					w.mustLog(c.log, why.Error())
				}
				w.mustLog(c.log)
				w.failing(c.fails, nil)
				p.mustReload(block("b", "unix:/b"))
				mustBe(t, "what is open", w.isOpen(), "unix:/b")
			})
		})
	}
}

// TestAReloadChangesWhatIsServed shows which gate of those that were made serves which block, how often it was
// configured, and what is open.
func TestAReloadChangesWhatIsServed(t *testing.T) {
	a, b := block("a", "unix:/a"), block("b", "unix:/b")
	for name, c := range map[string]struct {
		before, after string
		gates, open   string
		changed       string
	}{
		"nothing":                {a + b, a + b, "a=0/2 b=1/2", "unix:/a, unix:/b", "access of unix:/a, access of unix:/b"},
		"a gate is added":        {a, a + b, "a=0/2 b=1/1", "unix:/a, unix:/b", "access of unix:/a"},
		"a gate is removed":      {a + b, b, "b=1/2", "unix:/b", "access of unix:/b"},
		"a gate moves":           {a + b, block("a", "unix:/x") + b, "a=2/1 b=1/2", "unix:/b, unix:/x", "access of unix:/b"},
		"a gate is renamed":      {a, block("z", "unix:/a"), "z=0/2", "unix:/a", "access of unix:/a"},
		"two swap addresses":     {a + b, block("a", "unix:/b") + block("b", "unix:/a"), "a=1/2 b=0/2", "unix:/a, unix:/b", "access of unix:/b, access of unix:/a"},
		"all are others":         {a + b, block("c", "unix:/c"), "c=2/1", "unix:/c", ""},
		"an address of TCP":      {block("a", "127.0.0.1:1"), block("a", "127.0.0.1:1", "max_conns = 7"), "a=0/2", "127.0.0.1:1", ""},
		"sockets of systemd":     {block("a", "systemd:x"), block("a", "systemd:x") + b, "a=0/2 b=1/1", "2 systemd:x, unix:/b", ""},
		"the admin is added":     {a, a + operatorsAt("unix:/o"), "a=0/2", "unix:/a, unix:/o", "access of unix:/a"},
		"the admin is removed":   {a + operatorsAt("unix:/o"), a, "a=0/2", "unix:/a", "access of unix:/a"},
		"the admin moves":        {a + operatorsAt("unix:/o"), a + operatorsAt("127.0.0.1:1"), "a=0/2", "127.0.0.1:1, unix:/a", "access of unix:/a"},
		"the admin has a mode":   {a + operatorsAt("unix:/o"), a + operatorsAt("unix:/o", `listen_mode = "0600"`), "a=0/2", "unix:/a, unix:/o", "access of unix:/a, access of unix:/o"},
		"the admin stays":        {a + operatorsAt("unix:/o"), a + operatorsAt("unix:/o", "pprof = true"), "a=0/2", "unix:/a, unix:/o", "access of unix:/a"},
		"sessions are watched":   {a, block("a", "unix:/a", watched), "a=0/2", "unix:/a, watcher", "access of unix:/a"},
		"sessions are no longer": {block("a", "unix:/a", watched), a, "a=0/2", "unix:/a", "access of unix:/a"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, c.before)
				p.mustReload(c.after)
				mustBe(t, "gates", p.servedGates(), c.gates)
				mustBe(t, "what is open", w.isOpen(), c.open)
				mustBe(t, "what has changed", strings.Join(w.changed, ", "), c.changed)
				if got := p.State().Config; len(got.Gates) != len(p.State().Gates) {
					t.Errorf("got the config %+v, want the one that is served", got)
				}
			})
		})
	}
}

// TestAReloadListensAgainWhereASocketIsGone, and what cannot be opened again changes nothing. The gate is the same one,
// and serves the requests that came before.
func TestAReloadListensAgainWhereASocketIsGone(t *testing.T) {
	text := block("a", "unix:/a") + block("b", "unix:/b") + operatorsAt("unix:/o")
	for name, c := range map[string]struct {
		gone  []string
		open  string
		gates []bool // whether a and b are gone before the reload
	}{
		"of nothing":     {nil, "unix:/a, unix:/b, unix:/o", []bool{false, false}},
		"of a gate":      {[]string{"unix:/a"}, "2 unix:/a, unix:/b, unix:/o", []bool{true, false}},
		"of the admin":   {[]string{"unix:/o"}, "unix:/a, unix:/b, unix:/o", []bool{false, false}},
		"of all of them": {[]string{"unix:/o", "unix:/a", "unix:/b"}, "2 unix:/a, 2 unix:/b, unix:/o", []bool{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, text)
				r := p.gateOf("a").begin()
				for _, address := range c.gone {
					w.lose(address)
				}
				had := len(w.steps)
				for n := range c.gone {
					w.failAt = len(w.steps) + n + 1
					p.reload(text)
					w.mustLog("cannot apply config, keeping the running one", "cannot open "+c.gone[n])
					for i, g := range p.State().Gates {
						if g.Gone != c.gates[i] {
							t.Errorf("gate %s: got gone %v, want %v", g.Name, g.Gone, c.gates[i])
						}
					}
					had = len(w.steps)
				}
				w.failAt = 0
				p.mustReload(text)
				mustBe(t, "the steps", strings.Join(w.steps[had:], " "), strings.Join(c.gone, " "))
				mustBe(t, "what is open", w.isOpen(), c.open)
				mustBe(t, "the gate of a", strings.Split(p.servedGates(), "/")[0], "a=0")
				for _, g := range p.State().Gates {
					if g.Gone {
						t.Errorf("gate %s is still gone", g.Name)
					}
				}
				r.end()
				had = len(w.steps)
				p.mustReload(text)
				if len(w.steps) != had {
					t.Errorf("one more reload has taken the steps %v, want none", w.steps[had:])
				}
			})
		})
	}
}

// TestAChangeThatFailsIsLogged where nothing can be undone: the mode of a socket.
func TestAChangeThatFailsIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a")+operatorsAt("unix:/o"))
		w.failing("SetAccess", errors.New("not permitted"))
		p.mustReload(block("a", "unix:/a") + operatorsAt("unix:/o", `listen_mode = "0600"`))
		w.mustLog("mode and owner of the socket stay as they were", "gate=a", "not permitted", "mode of the admin's socket stays")
	})
}

// TestARemovedGateServesItsRequests until they end, or for a minute.
func TestARemovedGateServesItsRequests(t *testing.T) {
	for name, after := range map[string]time.Duration{"they end": 10 * time.Second, "they do not": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, block("a", "unix:/a", watched)+block("b", "unix:/b"))
				r := p.gateOf("a").begin()
				end := time.AfterFunc(after, r.end)
				defer end.Stop()
				p.mustReload(block("b", "unix:/b"))
				w.mustLog("gate removed from the config, draining it", "gate=a")
				mustBe(t, "what is open", w.isOpen(), "unix:/b, watcher")
				time.Sleep(min(after, removedLimit+DrainGrace) - time.Nanosecond)
				synctest.Wait()
				mustBe(t, "what is open just before the end", w.isOpen(), "unix:/b, watcher")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				mustBe(t, "what is open after the end", w.isOpen(), "unix:/b")
			})
		})
	}
}

// TestAWatcherLivesAsLongAsItsRequests, also through several reloads.
func TestAWatcherLivesAsLongAsItsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		text := block("a", "unix:/a", watched)
		p := begin(w, text)
		first := p.gateOf("a").begin()
		p.mustReload(text)
		second := p.gateOf("a").begin()
		p.mustReload(text)
		mustBe(t, "with requests of two generations", w.isOpen(), "unix:/a, 3 watcher")
		second.end()
		synctest.Wait()
		mustBe(t, "with one of the first", w.isOpen(), "unix:/a, 2 watcher")
		first.end()
		synctest.Wait()
		mustBe(t, "with none", w.isOpen(), "unix:/a, watcher")
	})
}

// TestSignalsThatComeWhileAConfigIsRead: further SIGHUPs are one more reload, and an end is not held up.
func TestSignalsThatComeWhileAConfigIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a"))
		w.loading = make(chan struct{})
		p.reload(block("b", "unix:/b"))
		p.signal(syscall.SIGHUP)
		p.signal(syscall.SIGHUP)
		mustBe(t, "gates while the config is read", p.servedGates(), "a=0/1")
		close(w.loading)
		synctest.Wait()
		if w.loads != 2 || p.servedGates() != "b=1/2" {
			t.Errorf("got %d reloads and the gates %s, want two reloads to b", w.loads, p.servedGates())
		}
		states := strings.Join(w.notified(), "\n")
		if strings.Count(states, "RELOADING=1\nMONOTONIC_USEC=") != 2 || strings.Count(states, "READY=1") != 3 {
			t.Errorf("got the states %q, want READY=1 after the start and each reload", states)
		}
		w.loading = make(chan struct{})
		p.signal(syscall.SIGHUP)
		p.signal(syscall.SIGTERM)
		if ended, err := p.hasEnded(); !ended || err != nil {
			t.Errorf("got ended %v, %v with a config that is never read, want an end", ended, err)
		}
		close(w.loading)
	})
}

// TestAnEndAwaitsAJudgment, which may have made a trial socket, but not one that hangs, and no further one begins.
func TestAnEndAwaitsAJudgment(t *testing.T) {
	for name, c := range map[string]struct {
		reading, judging time.Duration // until the config is read, and judged from then on
		ends             time.Duration // after the signal
		judged           int
	}{
		"none is under way":        {0, 0, 0, 1},
		"it takes a moment":        {0, 300 * time.Millisecond, 300 * time.Millisecond, 1},
		"it hangs":                 {0, time.Hour, judgeTimeout, 0},
		"the config is being read": {300 * time.Millisecond, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, block("a", "unix:/a"))
				w.judged, w.loading, w.judging = 0, make(chan struct{}), make(chan struct{})
				if c.reading == 0 {
					close(w.loading)
				}
				if c.judging == 0 {
					close(w.judging)
				}
				p.reload(block("b", "unix:/b"))
				p.signal(syscall.SIGTERM)
				if c.reading > 0 {
					time.AfterFunc(c.reading, func() { close(w.loading) })
				}
				if c.judging > 0 {
					time.AfterFunc(c.judging, func() { close(w.judging) })
				}
				if c.ends > 0 {
					time.Sleep(c.ends - time.Nanosecond)
					if ended, _ := p.hasEnded(); ended {
						t.Error("it has ended before the judgment")
					}
					time.Sleep(time.Nanosecond)
				}
				if ended, err := p.hasEnded(); !ended || err != nil {
					t.Errorf("got ended %v, %v, want an end after %v", ended, err, c.ends)
				}
				time.Sleep(c.reading)
				synctest.Wait()
				w.mu.Lock()
				judged := w.judged
				w.mu.Unlock()
				if judged != c.judged {
					t.Errorf("%d configs were judged, want %d", judged, c.judged)
				}
				time.Sleep(c.judging)
			})
		})
	}
}

func TestThereIsNothingToReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a"))
		w.failing("Load", ErrNoFile)
		p.signal(syscall.SIGHUP)
		w.mustLog("nothing to reload: there is no config file")
		if p.State().ReloadFailed || p.servedGates() != "a=0/1" || len(w.reports) > 0 {
			t.Errorf("got %+v and the reports %v, want all as it was", p.State(), w.reports)
		}
	})
}

// TestAReloadAppliesTheLog, and logs the warnings of the config.
func TestAReloadAppliesTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a"))
		p.mustReload("log { level = \"debug\" }\n" + block("a", "unix:/a"))
		mustBe(t, "levels", strings.Join(w.levels, " "), "debug")
	})
}

// TestSocketsThatNoGateListensOnAreNamed, as connections to them hang.
func TestSocketsThatNoGateListensOnAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.passed = []string{"x", "y"}
		p := begin(w, block("a", "systemd:x"))
		w.mustLog("unused socket from systemd", "socket=y", "listen=systemd:y")
		w.mustNotLog("socket=x")
		p.mustReload(block("a", "systemd:y"))
		w.mustLog("reloaded")
		w.mustLog("unused socket from systemd", "socket=y", "unused socket from systemd", "socket=x")
	})
}
