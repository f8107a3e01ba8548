package page

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/fpm-gate/fpm-gate/internal/rig/browser"
)

// paused returns the pause of the gate www, in which so many requests wait.
func paused(waiting int) *pauses {
	return &pauses{[]pause{{Gate: "www", Paused: true, Since: ago(10 * time.Second), Until: ago(-50 * time.Second), Waiting: waiting, Running: 3}}}
}

const pauseShown = `!document.querySelector("#pauses").hidden`

func showsAPause(t *testing.T, b *browser.Browser, s *stage) {
	s.tell(func(p *picture) {
		p.Pause = paused(1)
		p.Pause.Gates = append(p.Pause.Gates, pause{Gate: "<b>shop</b>", Paused: true, Since: ago(0), Until: ago(-time.Hour)})
	})
	tab := open(t, b, s, "")
	tab.Await(t, `document.querySelectorAll("#pauses li").length === 2`)
	got := strings.Split(text(t, tab, "#pauses span"), "\n")
	for i, want := range [][2]string{
		{"Gate www is paused until ", ": 1 request waits, 3 in PHP-FPM."},
		{"Gate <b>shop</b> is paused until ", ": 0 requests wait, 0 in PHP-FPM."},
	} {
		if !strings.HasPrefix(got[i], want[0]) || !strings.HasSuffix(got[i], want[1]) {
			t.Errorf("the page says %q, want %q", got[i], want)
		}
	}
	tab.Await(t, `document.title === "paused · fpm-gate on web-1"`)
	s.tell(func(p *picture) { p.Pause = paused(1234) })
	tab.Await(t, `document.querySelectorAll("#pauses li").length === 1`)
	tab.Await(t, `document.querySelector("#pauses").textContent.includes("1,234 requests wait")`)
	s.tell(func(p *picture) { p.Pause = nil })
	tab.Await(t, `document.querySelector("#pauses").hidden && document.title === "fpm-gate on web-1"`)
}

func resumesAfterAQuestion(t *testing.T, b *browser.Browser, s *stage) {
	s.tell(func(p *picture) { p.Pause = paused(12) })
	tab := open(t, b, s, "")
	tab.Await(t, pauseShown)
	tab.Do(t, click("#pauses button"), chromedp.WaitVisible(chromedp.CSS("#go-no")))
	for _, want := range []string{"Resume gate www?", "12 requests wait, 3 in PHP-FPM", "it may still be at work"} {
		if got := text(t, tab, "#go"); !strings.Contains(got, want) {
			t.Errorf("the question is %q, want %q in it", got, want)
		}
	}
	tab.Do(t, click("#go-no"))
	tab.Await(t, `!document.querySelector("#go").open`)
	if got := s.paused(); len(got) > 0 {
		t.Errorf("it sent %q though it was canceled", got)
	}
	tab.Do(t, click("#pauses button"), click("#go-yes"))
	tab.Await(t, `!document.querySelector("#go").open`)
	if got, want := s.paused(), []string{"DELETE gate=www X-FPM-Gate: 1"}; !slices.Equal(got, want) {
		t.Errorf("it sent %q, want %q", got, want)
	}
	mustRead(t, tab, "#said", "Gate www is resumed; 12 requests waited.")
}

// doesNotResumeAnother has a pause end, and another begin, while the page asks about the first one.
func doesNotResumeAnother(t *testing.T, b *browser.Browser, s *stage) {
	s.tell(func(p *picture) { p.Pause = paused(0) })
	tab := open(t, b, s, "")
	tab.Await(t, pauseShown)
	tab.Do(t, click("#pauses button"), chromedp.WaitVisible(chromedp.CSS("#go-yes")))
	s.tell(func(p *picture) { p.Pause = paused(0) })
	tab.Await(t, `document.querySelector("#go-yes").disabled`)
	mustRead(t, tab, "#go-error", "This pause has already ended.")
	tab.Do(t, click("#go-no"), click("#pauses button"))
	tab.Await(t, `!document.querySelector("#go-yes").disabled`)
	mustRead(t, tab, "#go-error", "")
}

func pausesAfterAQuestion(t *testing.T, b *browser.Browser, s *stage) {
	tab := open(t, b, s, "")
	tab.Do(t, click("#pause"), chromedp.WaitVisible(chromedp.CSS("#hold-no")))
	tab.Await(t, `!document.querySelector("#hold-yes").disabled`)
	mustRead(t, tab, "#hold-gate option", "all\nwww (3 in PHP-FPM)\nshop (0 in PHP-FPM)")
	tab.Do(t, click("#hold-no"))
	tab.Await(t, `!document.querySelector("#hold").open`)
	if got := s.paused(); len(got) > 0 {
		t.Errorf("it sent %q though it was canceled", got)
	}
	for _, choice := range []struct{ gate, limit, sent, says string }{
		{"", "60s", "for=60s", "All gates are paused."},
		{"shop", "5m", "for=5m&gate=shop", "Gate shop is paused."},
	} {
		tab.Do(t, click("#pause"))
		tab.Await(t, `!document.querySelector("#hold-yes").disabled`)
		tab.Do(t, chromedp.SetValue(chromedp.CSS("#hold-gate"), choice.gate), chromedp.SetValue(chromedp.CSS("#hold-for"), choice.limit))
		tab.Do(t, click("#hold-yes"))
		tab.Await(t, `!document.querySelector("#hold").open`)
		if got, want := s.paused(), "PUT "+choice.sent+" X-FPM-Gate: 1"; len(got) == 0 || got[len(got)-1] != want {
			t.Errorf("it sent %q, want %q", got, want)
		}
		mustRead(t, tab, "#said", choice.says)
	}
	s.tell(func(p *picture) { p.Pause = paused(0) })
	tab.Do(t, click("#pause"))
	tab.Await(t, `document.querySelector("#hold-gate option:nth-child(2)")?.textContent === "www (paused, 3 in PHP-FPM)"`)
}

func saysWhyNotPaused(t *testing.T, b *browser.Browser, s *stage) {
	s.tell(func(p *picture) { p.Pause = paused(0) })
	tab := open(t, b, s, "", "status of 409")
	tab.Await(t, pauseShown)
	for _, dialog := range []struct{ opens, sends, says string }{
		{"#pause", "#hold", "Not paused: this process is shutting down"},
		{"#pauses button", "#go", "Not resumed: this process is shutting down"},
	} {
		s.mu.Lock()
		s.refusal = "this process is shutting down"
		s.mu.Unlock()
		tab.Do(t, click(dialog.opens))
		tab.Await(t, `!document.querySelector("`+dialog.sends+`-yes").disabled`)
		tab.Do(t, click(dialog.sends+"-yes"))
		tab.Await(t, `document.querySelector("`+dialog.sends+`-error").textContent.trim() === "`+dialog.says+`"`)
		tab.Do(t, click(dialog.sends+"-yes")) // once more, and it works
		tab.Await(t, `!document.querySelector("`+dialog.sends+`").open`)
	}
}
