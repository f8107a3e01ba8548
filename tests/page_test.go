package tests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/fpm-gate/fpm-gate/internal/rig/browser"
)

// openPage opens the page of a gate that holds no session yet. It is at origin.
func openPage(t *testing.T) (s *stack, tab *browser.Tab, origin string) {
	t.Helper()
	s = newStack(t, stackOptions{}, "chromium")
	admin, err := s.Reserve("tcp", "admin")
	if err != nil {
		t.Fatal(err)
	}
	reload(t, s.Gate, fmt.Sprintf("admin { listen = %q }\n", admin)+s.Gate.Config)
	origin = "http://" + admin.String()
	tab = browser.Start(t).Open(t, origin+"/")
	tab.Await(t, `document.querySelector("#headline").textContent === "No session is held."`)
	return s, tab, origin
}

// TestThePageShowsAStormAndBreaksItsLock has a script block others, and an operator look on in a browser.
func TestThePageShowsAStormAndBreaksItsLock(t *testing.T) {
	t.Parallel()
	s, tab, origin := openPage(t)

	for as, script := range map[string]string{"export.php": "wait.php", "cart.php": "wait.php", "poll.php": "hello.php"} {
		copyScript(t, s.Rig, script, as)
	}
	session := newSession()
	export := s.begin("/export.php?mark=export", session)
	awaitMark(t, s.Rig, "export.started")
	cart := s.begin("/cart.php?mark=cart&secret="+session, session)
	tab.Await(t, `document.querySelectorAll(".row").length === 2`)
	poll := s.begin("/poll.php", session)
	tab.Await(t, `document.querySelectorAll(".row").length === 3`)
	pageReads(t, tab, ".row", "holds: GET /export.php", "waits: GET /cart.php", "waits: GET /poll.php")
	pageReads(t, tab, "#headline", "GET /export.php blocks 2 requests.")
	pageReads(t, tab, "#n-waiting", "2")

	tab.Do(t, chromedp.Click(chromedp.CSS(".break")), chromedp.Click(chromedp.CSS("#ask-yes")))
	awaitMark(t, s.Rig, "cart.started")
	tab.Await(t, `document.querySelectorAll(".row").length === 2`)
	pageReads(t, tab, ".row", "holds: GET /cart.php", "waits: GET /poll.php")
	tab.Await(t, `document.querySelector("#said").textContent.includes("is broken")`)

	letGo(t, s.Rig, "cart")
	(<-cart).mustBe(t, "last\n")
	(<-poll).mustBe(t, "hello\n")
	tab.Await(t, `document.querySelector(".lane.over")`)
	letGo(t, s.Rig, "export")
	(<-export).mustBe(t, "last\n")

	tab.Do(t, chromedp.Reload())
	tab.Await(t, `document.querySelectorAll("#scripts tr").length === 3`)
	if got := browser.Eval[string](t, tab, `document.querySelector("#scripts").textContent`); !strings.Contains(got, s.DocRoot+"/export.php") {
		t.Errorf("the last hour is %q, want the export in it", got)
	}
	if got := browser.Eval[string](t, tab, `document.documentElement.outerHTML`); strings.Contains(got, sessionPrefix) {
		t.Error("the page tells a session id")
	}
	if got := tab.Complaints(); len(got) > 0 {
		t.Errorf("the page complains: %q", got)
	}
	if got := tab.Strangers(origin); len(got) > 0 {
		t.Errorf("the page asks other places: %q", got)
	}
}

// TestThePagePausesAndResumes has an operator pause a gate in a browser, and let its requests go.
func TestThePagePausesAndResumes(t *testing.T) {
	t.Parallel()
	s, tab, _ := openPage(t)

	tab.Do(t, chromedp.Click(chromedp.CSS("#pause")))
	tab.Await(t, `!document.querySelector("#hold-yes").disabled`)
	pageReads(t, tab, "#hold-gate option", "www (0 in PHP-FPM)")
	tab.Do(t, chromedp.SetValue(chromedp.CSS("#hold-for"), "15m"), chromedp.Click(chromedp.CSS("#hold-yes")))
	tab.Await(t, `document.querySelector("#pauses").textContent.includes(": 0 requests wait, 0 in PHP-FPM.")`)
	held := s.begin("/hello.php", newSession())
	tab.Await(t, `document.querySelector("#pauses").textContent.includes(": 1 request waits, 0 in PHP-FPM.")`)
	tab.Do(t, chromedp.Click(chromedp.CSS("#pauses button")), chromedp.Click(chromedp.CSS("#go-yes")))
	(<-held).mustBe(t, "hello\n")
	tab.Await(t, `document.querySelector("#said").textContent === "Gate www is resumed; 1 request waited."`)
	tab.Await(t, `document.querySelector("#pauses").hidden`)
	for _, line := range []string{"pause requested by an operator: gate=www", "end of a pause requested by an operator: gate=www"} {
		awaitLog(t, s.Gate.Server, line)
	}
	if got := tab.Complaints(); len(got) > 0 {
		t.Errorf("the page complains: %q", got)
	}
}

// pageReads holds what the elements of a selector begin with to want.
func pageReads(t *testing.T, tab *browser.Tab, selector string, want ...string) {
	t.Helper()
	got := browser.Eval[[]string](t, tab, fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.textContent)`, selector))
	if len(got) != len(want) {
		t.Errorf("%s: got %q, want %q", selector, got, want)
		return
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s: got %q, want %q", selector, got[i], want[i])
		}
	}
}
