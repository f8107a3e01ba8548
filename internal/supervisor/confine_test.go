package supervisor

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/fpm-gate/fpm-gate/internal/landlock"
)

const (
	landlocked   = "landlock = true\n"
	unconfined   = "landlock = false\n"
	isConfined   = "this process can open only what its config names"
	isUnconfined = "no Landlock"
)

// TestTheProcessIsConfined as far as the config wishes and the kernel can, and serves in any case.
func TestTheProcessIsConfined(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		method string
		err    error
		traces bool
		logs   []string
	}{
		"it can":                   {landlocked, "", nil, false, []string{"[INFO]  " + isConfined, "landlock=5"}},
		"the config does not wish": {unconfined, "Confine", errors.New("called"), true, nil},
		"the kernel has none":      {landlocked, "LandlockVersion", errors.New("no such call"), false, []string{"[DEBUG] " + isUnconfined, "no such call"}},
		"it looks at workers":      {landlocked, "", nil, true, []string{"[INFO]  " + isUnconfined, "fpm-gate helper could"}},
		"it was built with C":      {landlocked, "Confine", fmt.Errorf("try it: %w", landlock.ErrCgo), false, []string{"[DEBUG] " + isUnconfined}},
		"its config is not within": {landlocked, "Confine", errors.New("permission denied"), false, []string{"[WARN]  " + isUnconfined, "permission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.traces = c.traces
				w.rules = map[string][]string{"a": {"/a"}, "b": {"/b"}}
				w.failing(c.method, c.err)
				p := begin(w, c.text+block("a", "unix:/a"))
				w.mustLog(append([]string{"listening"}, c.logs...)...)
				confined := c.method == "" && !c.traces
				if !confined {
					w.mustNotLog(isConfined)
				}
				if c.logs == nil {
					w.mustNotLog(isUnconfined)
				}
				p.reload(c.text + block("b", "unix:/b"))
				if p.State().ReloadFailed != confined {
					t.Errorf("got a failed reload %v, want confined %v", p.State().ReloadFailed, confined)
				}
			})
		})
	}
}

// TestAReloadOutOfReachIsRefused before anything of it is opened. It takes a restart.
func TestAReloadOutOfReachIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.rules = map[string][]string{"a": {"/a", "/etc"}, "b": {"/b", "/a", "/c"}, "within": {"/a/b", "/etc"}}
		p := begin(w, landlocked+block("a", "unix:/a"))
		steps := len(w.steps)
		w.failing("Judge", errors.New("judged"))
		p.reload(landlocked + block("b", "unix:/b"))
		mustBe(t, "gates", p.servedGates(), "a=0/1")
		if len(w.steps) != steps || !p.State().ReloadFailed {
			t.Errorf("got the steps %q, failed %v", w.steps[steps:], p.State().ReloadFailed)
		}
		w.mustLog("cannot apply config, keeping the running one", "/b, /c: not within reach", "restart fpm-gate")
		w.mustNotLog("judged")
		w.failing("Judge", nil)
		p.mustReload(landlocked + block("within", "unix:/a"))
		w.mustNotLog("a change of landlock takes a restart")
		p.mustReload(unconfined + block("within", "unix:/a"))
		w.mustLog("a change of landlock takes a restart", "landlock=false")
		p.reload(unconfined + block("b", "unix:/b"))
		mustBe(t, "gates of a process that stays confined", p.servedGates(), "within=0/3")
	})
}

// TestADenialIsExplained where it may come of the confinement: in a config of which there is only a text, too.
func TestADenialIsExplained(t *testing.T) {
	const explained = "restart it for a file elsewhere"
	for name, c := range map[string]struct {
		text, method string
		err          error
		explained    bool
	}{
		"a file of the config":  {landlocked, "Load", errors.New("x: " + syscall.EACCES.Error()), true},
		"a folder of a socket":  {landlocked, "Judge", fmt.Errorf("mkdir: %w", syscall.EACCES), true},
		"another error":         {landlocked, "Judge", errors.New("no such user"), false},
		"a process without it":  {unconfined, "Judge", syscall.EACCES, false},
		"a config without file": {landlocked, "Load", ErrNoFile, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, c.text+block("a", "unix:/a"))
				w.failing(c.method, c.err)
				p.reload(c.text + block("a", "unix:/a"))
				if c.explained {
					w.mustLog("keeping the running one", explained)
				} else {
					w.mustNotLog(explained)
				}
			})
		})
	}
}
