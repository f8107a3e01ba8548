package page

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/fpm-gate/fpm-gate/internal/rig/browser"
)

// TestTakeThePicture takes docs/page.png where FPM_GATE_PICTURE is "docs". Where it is a folder, it takes the page there
// as it looks in other schemes and sizes, and while a gate is paused.
func TestTakeThePicture(t *testing.T) {
	to := os.Getenv("FPM_GATE_PICTURE")
	if to == "" {
		t.Skip("takes docs/page.png with FPM_GATE_PICTURE=docs, or all views with the name of a folder")
	}
	b, s := browser.Start(t), newStage(t)
	s.history = `{"scripts":[
		{"script":"/srv/www/public/export.php","gate":"www","holds":9,"held_ms_total":81000,"held_ms_max":14200,"blocked_ms_total":402000,"blocked":71,
		 "requests":9,"slow":6,"wait_ms_total":1200,"queue_ms_total":0,"php_ms_total":81000,"php_ms_max":14200},
		{"script":"/srv/www/public/shop/cart.php","gate":"www","holds":1840,"held_ms_total":552000,"held_ms_max":2100,"blocked_ms_total":61000,"blocked":214,
		 "requests":1840,"slow":0,"wait_ms_total":88000,"queue_ms_total":300,"php_ms_total":560000,"php_ms_max":2100}],
		"waits":[{"le_ms":1,"count":5120},{"le_ms":10,"count":311},{"le_ms":100,"count":190},{"le_ms":1000,"count":96},{"le_ms":10000,"count":41},{"le_ms":null,"count":3}]}`
	tab := b.Open(t, s.URL+"/", chromedp.EmulateViewport(1180, 905))
	actStorm(t, tab, s)
	if to == "docs" {
		take(t, tab, "dark", "../../docs/page.png")
		return
	}
	views := func(name string) {
		take(t, tab, "dark", filepath.Join(to, name+"-dark.png"))
		take(t, tab, "light", filepath.Join(to, name+"-light.png"))
	}
	views("wide")
	s.tell(func(p *picture) { p.Pause = paused(12) })
	tab.Await(t, pauseShown)
	views("paused")
	tab.Do(t, click("#pauses button"), chromedp.WaitVisible(chromedp.CSS("#go-yes")))
	views("resume")
	tab.Do(t, click("#go-no"), click("#pause"))
	tab.Await(t, `!document.querySelector("#hold-yes").disabled`)
	views("pause")
	tab.Do(t, chromedp.EmulateViewport(360, 740))
	views("pause-narrow")
	tab.Do(t, click("#hold-no"))
	views("narrow")
}

// actStorm plays some seconds in which an export blocks nine requests, and another session's requests take turns.
func actStorm(t *testing.T, tab *browser.Tab, s *stage) {
	t.Helper()
	messages, account, avatar := newRequest("GET", "/api/messages.php"), newRequest("GET", "/account/index.php"), newRequest("GET", "/media/avatar.php")
	carts := newRequest("POST", "/shop/cart.php")
	exports := held("a1b2c3d4", export, 1300*time.Millisecond)
	for i, r := range []request{messages, account, messages, carts, messages, avatar, account, messages, carts} {
		exports.Waiters = append(exports.Waiters, waits(r, time.Duration(800-80*i)*time.Millisecond))
	}
	turns := held("77f0e91c", messages, 0)
	for i := range 15 {
		turns.Waiters = append(turns.Waiters, waits([]request{carts, messages, account}[i%3], time.Duration(20-i)*15*time.Millisecond))
	}
	far := held("c0ffee00", request{Gate: "www", Host: "web-2"}, 0)
	far.Expires = time.Time{}
	report := held("5e55104a", newRequest("GET", "/report/annual.php"), 2*time.Second)
	report.Expires = time.Now().Add(9 * time.Second)
	for i := range 14 {
		s.show(exports, turns, far, report)
		time.Sleep(time.Duration(300+i*i*37%340) * time.Millisecond)
		turns.Holder, turns.Since = turns.Waiters[0].request, time.Now()
		turns.Holder.Host, turns.Waiters = "web-1", turns.Waiters[1:]
		if i == 4 || i == 6 {
			far.Waiters = append(far.Waiters, waits(account, 0))
		}
	}
	s.show(exports, turns, far, report)
	tab.Await(t, `document.querySelectorAll(".lane").length === 4 && document.querySelector("#n-waiting").textContent === "12"`)
	time.Sleep(400 * time.Millisecond) // for the bars to be seen
}

// take writes a picture of what the tab shows in a scheme of colors.
func take(t *testing.T, tab *browser.Tab, scheme, file string) {
	t.Helper()
	tab.Emulate(t, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	time.Sleep(300 * time.Millisecond) // a picture is drawn within a quarter of a second
	if err := os.WriteFile(file, browser.Get(t, tab, chromedp.CaptureScreenshot()), 0o644); err != nil {
		t.Fatal(err)
	}
}
