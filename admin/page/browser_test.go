package page

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/fpm-gate/fpm-gate/internal/rig/browser"
)

// TestInTheBrowser opens the page in one Chromium, a tab for each case.
func TestInTheBrowser(t *testing.T) {
	b := browser.Start(t)
	for name, test := range map[string]func(*testing.T, *browser.Browser, *stage){
		"a storm":                         showsAStorm,
		"the most blocking stands first":  sortsByWhatIsBlocked,
		"what has ended stays":            keepsWhatHasEnded,
		"requests that gave up are shown": showsWhatGaveUp,
		"a holder on another host":        namesTheOtherHost,
		"a holder in another process":     namesAnotherProcess,
		"a break asks for confirmation":   breaksAfterAQuestion,
		"a question that is outdated":     doesNotBreakAnother,
		"why, and the script's end":       endsAScript,
		"a worker that is not seen":       saysWhyNotSeen,
		"a break that fails":              saysWhyNotBroken,
		"a lost connection":               comesBackByItself,
		"an answer that is no JSON":       saysWhatItCannotRead,
		"warnings":                        showsWarnings,
		"frozen":                          freezes,
		"a pause is shown":                showsAPause,
		"a resume asks for confirmation":  resumesAfterAQuestion,
		"a resume that is outdated":       doesNotResumeAnother,
		"a pause asks for confirmation":   pausesAfterAQuestion,
		"a pause that fails":              saysWhyNotPaused,
		"filter":                          filters,
		"text stays text":                 takesTextAsText,
		"a thousand locks":                drawsOnlyWhatCanBeSeen,
		"keyboard":                        worksByKeyboard,
		"table":                           hasATable,
		"phone":                           fitsAPhone,
		"nothing held":                    explainsAnEmptyGate,
		"last hour":                       showsTheLastHour,
		"less motion":                     movesLess,
	} {
		t.Run(name, func(t *testing.T) { test(t, b, newStage(t)) })
	}
}

// open opens the page. When the test ends, the page must not have complained, nor
// asked anybody else.
func open(t *testing.T, b *browser.Browser, s *stage, hash string, expected ...string) *browser.Tab {
	t.Helper()
	tab := b.Open(t, s.URL+"/"+hash, chromedp.EmulateViewport(1280, 900))
	t.Cleanup(func() {
		for _, c := range tab.Complaints() {
			if !slices.ContainsFunc(expected, func(e string) bool { return strings.Contains(c, e) }) {
				t.Errorf("the page complains: %s", c)
			}
		}
		if got := tab.Strangers(s.URL); len(got) > 0 {
			t.Errorf("the page sends requests elsewhere: %q", got)
		}
	})
	return tab
}

var (
	export = newRequest("POST", "/export.php")
	poll   = newRequest("GET", "/poll.php")
	cart   = newRequest("POST", "/cart.php")
)

// storm is a session in which an export blocks three others.
func storm() lock {
	return held("a1b2c3d4", export, 8*time.Second, waits(poll, 7*time.Second), waits(cart, 5*time.Second), waits(poll, 2*time.Second))
}

func (s *stage) show(locks ...lock) { s.tell(func(p *picture) { p.Locks = locks }) }

// text is what is written in the elements of a selector, by lines.
func text(t *testing.T, tab *browser.Tab, selector string) string {
	t.Helper()
	return browser.Eval[string](t, tab, fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.textContent.trim()).join("\n")`, selector))
}

func mustRead(t *testing.T, tab *browser.Tab, selector, want string) {
	t.Helper()
	if got := text(t, tab, selector); got != want {
		t.Errorf("%s: got %q, want %q", selector, got, want)
	}
}

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

// hover moves the mouse to an element.
func hover(t *testing.T, tab *browser.Tab, selector string) {
	t.Helper()
	at := browser.Eval[[]float64](t, tab, fmt.Sprintf(`(({ x, y }) => [x + 5, y + 5])(document.querySelector(%q).getBoundingClientRect())`, selector))
	tab.Do(t, chromedp.MouseEvent(chromedp.MouseMoved, at[0], at[1]))
}

func showsAStorm(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	mustRead(t, tab, "#headline", "POST /export.php blocks 3 requests.")
	mustRead(t, tab, ".lane .key", "a1b2c3d4")
	mustRead(t, tab, ".row .path", "/export.php\n/poll.php\n/cart.php\n/poll.php")
	mustRead(t, tab, ".row .vh", "holds:\nwaits:\nwaits:\nwaits:")
	mustRead(t, tab, "#n-waiting", "3")
	mustRead(t, tab, "#host", "web-1")
	mustRead(t, tab, "#link-text", "live")
	if got := text(t, tab, ".sum"); !strings.HasPrefix(got, "blocks 3 · ") {
		t.Errorf("the lane says %q, want that it blocks 3", got)
	}
	tab.Await(t, `document.querySelector(".expiry").textContent.startsWith("expires in ")`)

	// The bars begin in the order of their times, and all of them go beyond now, where they are cut off.
	lefts := browser.Eval[[]float64](t, tab, `[...document.querySelectorAll(".row.live")].map((r) => [...r.querySelectorAll("i:not([hidden])")].at(r.matches(".waits") ? 0 : -2).getBoundingClientRect().left)`)
	if !slices.IsSorted(lefts) || lefts[0] == lefts[3] {
		t.Errorf("the bars begin at %v, want one after the other", lefts)
	}
	tab.Await(t, `[...document.querySelectorAll(".row .past")].every((p) => [...p.querySelectorAll("i:not([hidden])")].at(-1).getBoundingClientRect().right > p.getBoundingClientRect().right)`)
	tab.Await(t, `document.title === "(3) fpm-gate on web-1"`)

	hover(t, tab, ".row .path")
	tab.Await(t, `!document.querySelector("#tip").hidden`)
	if got := text(t, tab, "#tip"); !strings.Contains(got, export.Script) {
		t.Errorf("the tip says %q, want the script", got)
	}
}

func sortsByWhatIsBlocked(t *testing.T, b *browser.Browser, s *stage) {
	s.show(
		held("00000001", poll, 30*time.Second),
		held("00000002", export, 4*time.Second, waits(poll, time.Second)),
		held("00000003", export, 9*time.Second, waits(poll, 6*time.Second), waits(poll, 5*time.Second)),
	)
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".lane").length === 3`)
	mustRead(t, tab, ".lane .key", "00000003\n00000002\n00000001")

	s.tell(func(p *picture) { p.Locks[0].Waiters = []waiter{waits(cart, 20*time.Second)} })
	tab.Await(t, `document.querySelector(".lane .key").textContent === "00000001"`)
}

func keepsWhatHasEnded(t *testing.T, b *browser.Browser, s *stage) {
	l := storm()
	s.show(l)
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)

	next := held("a1b2c3d4", cart, 0, l.Waiters[2]) // the poll before it had its turn meanwhile
	s.show(next)
	tab.Await(t, `document.querySelectorAll(".row").length === 2`)
	mustRead(t, tab, ".row .path", "/cart.php\n/poll.php")
	tab.Await(t, `document.querySelectorAll(".thin").length === 2`)
	if got, want := browser.Eval[int](t, tab, `document.querySelectorAll(".thin i.hold:not([hidden])").length`), 2; got != want {
		t.Errorf("%d holds are over, want %d", got, want)
	}
	if !browser.Eval[bool](t, tab, `!document.querySelector(".row i.wait").hidden`) {
		t.Error("the holder's own wait is not shown")
	}

	s.show()
	tab.Await(t, `document.querySelector(".lane.over")`)
	mustRead(t, tab, ".lane .key", "a1b2c3d4")
	mustRead(t, tab, ".lane .path", "/poll.php")
	s.show(held("a1b2c3d4", export, 0)) // the same session again
	tab.Await(t, `document.querySelectorAll(".lane:not(.over) .thin").length === 4`)
	s.show()
	tab.Await(t, `document.querySelector(".lane.over")`)
	if !browser.Eval[bool](t, tab, `document.querySelector(".break").hidden`) {
		t.Error("a lock that has ended can be broken")
	}
	mustRead(t, tab, "#headline", "No session is held.")
}

func showsWhatGaveUp(t *testing.T, b *browser.Browser, s *stage) {
	l := storm()
	s.show(l)
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	l.Waiters = l.Waiters[1:]
	s.show(l)
	tab.Await(t, `document.querySelectorAll(".thin .gave-up:not([hidden])").length === 1`)
	mustRead(t, tab, ".row .path", "/export.php\n/cart.php\n/poll.php")
}

func namesTheOtherHost(t *testing.T, b *browser.Browser, s *stage) {
	s.show(held("c0ffee00", request{Gate: "www", Host: "web-2"}, 3*time.Second, waits(poll, time.Second)))
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelector(".lane")`)
	mustRead(t, tab, ".where", "www · held on web-2")
	mustRead(t, tab, "#n-elsewhere", "1")
	mustRead(t, tab, "#headline", "A holder on web-2 blocks 1 request.")
	if !browser.Eval[bool](t, tab, `document.querySelector(".break").hidden && !!document.querySelector("i.far")`) {
		t.Error("a lock of another host can be broken, or does not look like one")
	}
}

func namesAnotherProcess(t *testing.T, b *browser.Browser, s *stage) {
	l := held("c0ffee00", request{Gate: "www", Host: "web-1"}, 3*time.Second, waits(poll, 2*time.Second))
	l.Held = false
	unknown := lock{Key: "0ddba110", Realm: "www", Gate: "www", Waiters: []waiter{waits(poll, time.Second)}}
	s.show(l, unknown)
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".lane").length === 2`)
	mustRead(t, tab, ".where", "www · held by another process\nwww")
	mustRead(t, tab, ".row .path", "held by another process\n/poll.php\nasking the store\n/poll.php")
}

func breaksAfterAQuestion(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Do(t, click(".break"), chromedp.WaitVisible(chromedp.CSS("#ask-no")))
	if got := text(t, tab, "#ask"); !strings.Contains(got, "The script keeps running without its lock.") || !strings.Contains(got, "POST /export.php") {
		t.Errorf("the question is %q", got)
	}
	tab.Do(t, click("#ask-no"))
	tab.Await(t, `!document.querySelector("#ask").open`)
	if got := s.breaks(); len(got) > 0 {
		t.Errorf("it broke %q though it was to let it be", got)
	}

	tab.Do(t, click(".break"), click("#ask-yes"))
	tab.Await(t, `!document.querySelector("#ask").open`)
	if got, want := s.breaks(), []string{"break " + storm().Key + ", X-FPM-Gate: 1"}; !slices.Equal(got, want) {
		t.Errorf("it broke %q, want %q", got, want)
	}
	if got := text(t, tab, "#said"); !strings.Contains(got, "a1b2c3d4 is broken") {
		t.Errorf("it says %q", got)
	}
}

func endsAScript(t *testing.T, b *browser.Browser, s *stage) {
	s.why = `{"worker":{"pid":4711,"state":"sleeping","syscall":"poll","target":"10.0.0.7:3306","session":"active",` +
		`"handler":"files","file":"/srv/<b>app</b>.php","line":12}}`
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Do(t, click(".break"), chromedp.WaitVisible(chromedp.CSS("#ask-end")))
	mustRead(t, tab, "#ask-why", "Process 4711 is sleeping, waits in poll for 10.0.0.7:3306, has its session open (files). "+
		"It started the session in /srv/<b>app</b>.php:12.")
	tab.Do(t, click("#ask-end"))
	tab.Await(t, `!document.querySelector("#ask").open`)
	if got, want := s.breaks(), []string{"end the script of " + storm().Key + ", X-FPM-Gate: 1"}; !slices.Equal(got, want) {
		t.Errorf("it asked for %q, want %q", got, want)
	}
	mustRead(t, tab, "#said", "The script of lock a1b2c3d4 has ended by PHP's time limit.")
}

func saysWhyNotSeen(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Do(t, click(".break"))
	tab.Await(t, `document.querySelector("#ask-why").textContent === "Its worker cannot be looked at: the helper is away"`)
	if !browser.Eval[bool](t, tab, `document.querySelector("#ask-end").hidden && document.querySelector("#ask-ends").hidden`) {
		t.Error("it offers to end a script that it cannot end")
	}
}

func doesNotBreakAnother(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Do(t, click(".break"), chromedp.WaitVisible(chromedp.CSS("#ask-yes")))
	s.show(held("a1b2c3d4", poll, 0))
	tab.Await(t, `document.querySelector("#ask-yes").disabled`)
	mustRead(t, tab, "#ask-error", "This lock has already ended.")
}

func saysWhyNotBroken(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	s.refusal = "the store is on fire"
	tab := open(t, b, s, "", "status of 500")
	tab.Do(t, click(".break"), click("#ask-yes"))
	tab.Await(t, `document.querySelector("#ask-error").textContent.includes("the store is on fire")`)
	if !browser.Eval[bool](t, tab, `document.querySelector("#ask").open && !document.querySelector("#ask-yes").disabled`) {
		t.Error("one cannot try again")
	}
}

func comesBackByItself(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "", "503", "net::ERR_")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	s.lose(true)
	tab.Await(t, `document.querySelector("#link").dataset.link === "lost" && !document.querySelector("#banner").hidden`)
	if got := text(t, tab, "#banner"); !strings.Contains(got, "has not answered since") {
		t.Errorf("the banner says %q", got)
	}
	frozen := text(t, tab, ".row .time")
	s.lose(false)
	tab.Await(t, `document.querySelector("#link").dataset.link === "live" && document.querySelector("#banner").hidden`)
	tab.Await(t, fmt.Sprintf(`document.querySelector(".row .time").textContent !== %q`, strings.Split(frozen, "\n")[0]))
}

func saysWhatItCannotRead(t *testing.T, b *browser.Browser, s *stage) {
	s.garbage = `{"at":`
	tab := open(t, b, s, "", "SyntaxError")
	tab.Await(t, `document.querySelector("#banner").textContent.startsWith("What the gate sent cannot be read")`)
	s.mu.Lock()
	s.garbage = ""
	s.mu.Unlock()
	s.show(storm())
	tab.Await(t, `document.querySelectorAll(".row").length === 4 && document.querySelector("#banner").hidden`)
}

// showsWarnings shows what does not fit between the config and the application, for as long as that lasts.
func showsWarnings(t *testing.T, b *browser.Browser, s *stage) {
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelector("#link").dataset.link === "live" && document.querySelector("#warnings").hidden`)
	s.tell(func(p *picture) { p.Warnings = []string{"gate <b>www</b>: one", "gate shop: two"} })
	tab.Await(t, `!document.querySelector("#warnings").hidden`)
	if got, want := text(t, tab, "#warnings"), "gate <b>www</b>: one\ngate shop: two"; got != want {
		t.Errorf("the page says %q, want %q", got, want)
	}
	s.tell(func(p *picture) { p.Warnings = nil })
	tab.Await(t, `document.querySelector("#warnings").hidden`)
}

func freezes(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	tab.Do(t, click("#freeze"))
	mustRead(t, tab, "#link-text", "frozen")
	before := text(t, tab, "#chart")
	s.show(held("00000001", poll, time.Second))
	if got := text(t, tab, "#chart"); got != before {
		t.Errorf("while frozen it went from %q to %q", before, got)
	}
	tab.Do(t, click("#freeze"))
	tab.Await(t, `[...document.querySelectorAll(".lane:not(.over) .key")].map((k) => k.textContent).join() === "00000001"`)
}

func filters(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm(), held("00000001", newRequest("GET", "/report.php"), time.Second))
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".lane").length === 2`)
	for q, key := range map[string]string{"REPORT": "00000001", "cart": "a1b2c3d4", "a1b2": "a1b2c3d4", "public/export": "a1b2c3d4"} {
		filter(t, tab, q)
		tab.Await(t, fmt.Sprintf(`[...document.querySelectorAll(".lane .key")].map((k) => k.textContent).join() === %q`, key))
	}
	filter(t, tab, "nothing-like-it")
	tab.Await(t, `document.querySelector("#empty h3").textContent === "Nothing matches the filter"`)
	if got, want := browser.Eval[string](t, tab, "location.hash"), "#q=nothing-like-it"; got != want {
		t.Errorf("the address has %q, want %q", got, want)
	}
	filter(t, tab, kb.Backspace)
	tab.Do(t, click("#only"))
	tab.Await(t, `document.querySelectorAll(".lane").length === 1`)
	mustRead(t, tab, ".lane .key", "a1b2c3d4")
}

// filter types something in the place of what is there.
func filter(t *testing.T, tab *browser.Tab, q string) {
	t.Helper()
	browser.Eval[bool](t, tab, `(document.querySelector("#filter").select(), true)`)
	tab.Do(t, chromedp.KeyEvent(q))
}

func takesTextAsText(t *testing.T, b *browser.Browser, s *stage) {
	const evil = `/<img src=x onerror="document.title='hit'"><b>&amp;`
	l := held("00000001", newRequest("GET", evil), time.Second, waits(newRequest(`<script>`, evil), time.Second))
	l.Realm, l.Gate, l.Holder.Route = evil, evil, evil
	s.show(l)
	s.history = fmt.Sprintf(`{"scripts":[{"script":%q,"gate":"www","holds":1,"held_ms_total":1,"held_ms_max":1,"blocked_ms_total":1,"blocked":1}],"waits":[]}`, evil)
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 2 && document.querySelector("#scripts td")`)
	mustRead(t, tab, ".row .path", evil+"\n"+evil)
	mustRead(t, tab, "#scripts td:first-child", evil)
	hover(t, tab, ".row .path")
	tab.Do(t, click("#as-table"))
	tab.Await(t, `document.querySelector("#table-rows td")`)
	if got, want := browser.Eval[int](t, tab, `document.querySelectorAll("img, script").length`), 2; got != want {
		t.Errorf("%d pictures and scripts, want the page's own %d", got, want)
	}
}

// drawsOnlyWhatCanBeSeen also says how long the page is busy with one picture.
func drawsOnlyWhatCanBeSeen(t *testing.T, b *browser.Browser, s *stage) {
	const locks, waiters = 1000, 64
	all := make([]lock, locks)
	for i := range all {
		all[i] = held(fmt.Sprintf("%08x", i), export, 70*time.Second)
		for j := range waiters {
			all[i].Waiters = append(all[i].Waiters, waits(poll, time.Duration(waiters-j)*time.Second))
		}
	}
	tab := open(t, b, s, "")
	tab.Await(t, `!document.querySelector("#empty").hidden`)
	browser.Eval[bool](t, tab, `(window.busy = [], new PerformanceObserver((l) => busy.push(...l.getEntries().map((e) => Math.round(e.duration)))).observe({ type: "longtask" }), true)`)
	s.show(all...)
	tab.Await(t, `document.querySelector("#n-waiting").textContent === "64,000"`)
	mustRead(t, tab, "#rest span", "… and 976 more sessions, which block less.")
	if got, most := browser.Eval[int](t, tab, `document.querySelectorAll("*").length`), 6000; got > most {
		t.Errorf("the page has %d elements, want %d at most", got, most)
	}
	mustRead(t, tab, ".lane:first-child .row:last-child .path", "… and 58 more")
	tab.Do(t, click(".lane .more"))
	tab.Await(t, `document.querySelectorAll(".lane:first-child .row").length === 65`)
	s.tell(func(p *picture) { p.Locks[0].Waiters = p.Locks[0].Waiters[1:] })
	tab.Await(t, `document.querySelector("#n-waiting").textContent === "63,999"`)
	t.Logf("with %d locks of %d waiters the page was busy for %v ms at a time", locks, waiters, browser.Eval[[]int](t, tab, "busy"))
}

func worksByKeyboard(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	focused := `document.activeElement.querySelector?.(".path")?.textContent ?? document.activeElement.id`
	tab.Do(t, chromedp.Focus(chromedp.CSS("#as-table")))
	for range 3 { // the button of the lane, then its rows, which are one stop
		tab.Do(t, chromedp.KeyEvent(kb.Tab))
		if browser.Eval[string](t, tab, focused) == "/export.php" {
			break
		}
	}
	for _, step := range []struct{ key, want string }{
		{"", "/export.php"}, {kb.ArrowDown, "/poll.php"}, {kb.ArrowDown, "/cart.php"}, {kb.ArrowUp, "/poll.php"}, {kb.Home, "/export.php"},
	} {
		if step.key != "" {
			tab.Do(t, chromedp.KeyEvent(step.key))
		}
		if got := browser.Eval[string](t, tab, focused); got != step.want {
			t.Errorf("got to %q, want %q", got, step.want)
		}
	}
	tab.Await(t, `!document.querySelector("#tip").hidden`)
	if got := text(t, tab, "#tip"); !strings.Contains(got, export.Script) {
		t.Errorf("the tip says %q, want the script", got)
	}
	s.show(storm()) // a new picture must not take the focus away
	if got, want := browser.Eval[string](t, tab, focused), "/export.php"; got != want {
		t.Errorf("after a new picture the focus is on %q, want %q", got, want)
	}
	tab.Do(t, chromedp.KeyEvent(kb.Escape))
	tab.Await(t, `document.querySelector("#tip").hidden`)
}

func hasATable(t *testing.T, b *browser.Browser, s *stage) {
	l := storm()
	s.show(l)
	tab := open(t, b, s, "#table=1")
	tab.Await(t, `document.querySelectorAll("#table-rows tr").length === 4`)
	mustRead(t, tab, "#table-rows td:nth-child(3)", "holds\nwaits, place 1\nwaits, place 2\nwaits, place 3")
	mustRead(t, tab, "#table-rows td:nth-child(4)", "POST /export.php\nGET /poll.php\nPOST /cart.php\nGET /poll.php")
	for range 300 {
		l.Waiters = append(l.Waiters, waits(poll, 0))
	}
	s.show(l)
	tab.Await(t, `document.querySelectorAll("#table-rows tr").length === 201`)
	mustRead(t, tab, "#table-rows tr:last-child td:nth-child(4)", "and 104 more")
	tab.Do(t, click("#as-lanes"))
	tab.Await(t, `!document.querySelector("#chart").hidden && document.querySelector("#table").hidden`)
}

func fitsAPhone(t *testing.T, b *browser.Browser, s *stage) {
	l := storm()
	l.Holder = newRequest("POST", "/a/very/long/path/that/does/not/fit/a/phone/at/all/export.php")
	s.show(l)
	s.tell(func(p *picture) { p.Pause = paused(2) })
	s.history = `{"scripts":[{"script":"/srv/www/a/very/long/path/that/does/not/fit.php","gate":"www","holds":1,"held_ms_total":1,"held_ms_max":1,"blocked_ms_total":1,"blocked":1}],"waits":[{"le_ms":1,"count":12},{"le_ms":null,"count":0}]}`
	tab := open(t, b, s, "")
	tab.Do(t, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	for _, hash := range []string{"#table=1", "#"} {
		tab.Do(t, chromedp.Navigate(s.URL+"/"+hash))
		tab.Await(t, `!document.querySelector("#chart").hidden || document.querySelector("#table-rows td")`)
		if got, want := browser.Eval[int](t, tab, "document.documentElement.scrollWidth"), 360; got > want {
			t.Errorf("%q: the page is %d pixels wide, want %d", hash, got, want)
		}
	}
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	tab.Do(t, chromedp.Tap(chromedp.CSS(".row")))
	tab.Await(t, `!document.querySelector("#tip").hidden`)
	tab.Do(t, chromedp.Tap(chromedp.CSS("h1")))
	tab.Await(t, `document.querySelector("#tip").hidden`)
}

func explainsAnEmptyGate(t *testing.T, b *browser.Browser, s *stage) {
	tab := open(t, b, s, "")
	tab.Await(t, `!document.querySelector("#empty").hidden`)
	mustRead(t, tab, "#headline", "No session is held.")
	mustRead(t, tab, "#empty h3", "No session is held or waited for")
	tab.Await(t, `document.querySelector("#scripts-note").textContent === "No script has held a session yet."`)
	s.show(storm())
	tab.Await(t, `document.querySelector("#empty").hidden`)
}

func showsTheLastHour(t *testing.T, b *browser.Browser, s *stage) {
	s.history = `{"scripts":[
		{"script":"/srv/a.php","gate":"www","holds":2000,"held_ms_total":80000,"held_ms_max":410,"blocked_ms_total":0,"blocked":0},
		{"script":"/srv/b.php","gate":"www","holds":2,"held_ms_total":18000,"held_ms_max":12000,"blocked_ms_total":75000,"blocked":31,
		 "requests":2,"slow":0,"wait_ms_total":60000,"queue_ms_total":0,"php_ms_total":20000,"php_ms_max":12000},
		{"script":"/srv/c.php","gate":"www","holds":0,"held_ms_total":0,"held_ms_max":0,"blocked_ms_total":0,"blocked":0,
		 "requests":10,"slow":2,"wait_ms_total":0,"queue_ms_total":2000,"php_ms_total":30000,"php_ms_max":9000}],
		"waits":[{"le_ms":1,"count":1200},{"le_ms":10000,"count":3},{"le_ms":null,"count":0}]}`
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll("#scripts tr").length === 2`)
	mustRead(t, tab, "#scripts tr:first-child td", "/srv/b.php\n1 min 15 s\n31\n12 s\n9.0 s\n2")
	mustRead(t, tab, "#waits li", "≤ 1 ms1,200\n≤ 10 s3\n> 10 s0")
	tab.Do(t, click(`[data-sort="holds"]`))
	mustRead(t, tab, "#scripts tr:first-child td", "/srv/a.php\n–\n0\n410 ms\n40 ms\n2,000")
	mustRead(t, tab, `th[aria-sort="descending"]`, "Holds\nIn PHP")
	mustRead(t, tab, "#requests tr td", "/srv/c.php\n30 s\n9.0 s\n3.0 s\n–\n2.0 s\n2\n10\n/srv/b.php\n20 s\n12 s\n10 s\n1 min 00 s\n–\n–\n2")
	tab.Do(t, click(`[data-sort="wait_ms_total"]`))
	mustRead(t, tab, "#requests tr:first-child td:first-child", "/srv/b.php")
	mustRead(t, tab, `th[aria-sort="descending"]`, "Holds\nWaited for session")
}

func movesLess(t *testing.T, b *browser.Browser, s *stage) {
	s.show(storm())
	tab := open(t, b, s, "")
	tab.Emulate(t, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}})
	tab.Await(t, `document.querySelectorAll(".row").length === 4`)
	if got := browser.Eval[string](t, tab, `getComputedStyle(document.querySelector(".link i")).animationName`); got != "none" {
		t.Errorf("the light has the animation %q, want none", got)
	}
}
