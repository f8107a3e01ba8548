package demo

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write testdata/table.txt anew")

// sample are figures as a run gives them.
func sample() *Figures {
	return &Figures{
		Nginx: "1.22.1", PHP: "8.2.29", Workers: workers, Seconds: 64.6,
		TwoScripts: &Pair[TwoScripts]{TwoScripts{703.2, Held{2, 2}}, TwoScripts{704, Held{1, 1}}},
		Bursts: []Burst{
			{Handler: "files", Pair: &Pair[BurstSide]{
				BurstSide{Total: 4041, Before: Latency{100, 1.3, 3.3, 4}, During: Latency{404, 1143.5, 3092, 3132},
					Workers: Held{10, 10}, Answers: map[string]int{"200": 40}, Requests: 40},
				BurstSide{Total: 4057, Before: Latency{100, 1.7, 4.2, 6}, During: Latency{405, 1.8, 4.9, 18},
					Workers: Held{2, 3}, Answers: map[string]int{"200": 40}, Requests: 40},
			}},
			{Handler: "memcached", Skipped: "php-memcached is not installed"},
			{Handler: "unlocked", Pair: &Pair[BurstSide]{
				BurstSide{Total: 420, Before: Latency{100, 1.3, 3.3, 4}, During: Latency{42, 204, 401, 401}, Failed: 3,
					Workers: Held{10, 10}, Answers: map[string]int{"200": 38, "502": 2}, Lost: 34, Requests: 40},
				BurstSide{Total: 4100, Before: Latency{100, 1.7, 4.2, 6}, During: Latency{410, 1.8, 4.9, 18},
					Workers: Held{2, 3}, Answers: map[string]int{"200": 40}, Requests: 40},
			}},
		},
		Hang: &Hang{Bound: 20000,
			Files: Pair[HangSide]{
				HangSide{Pages: 12, Workers: Held{10, 10}, Others: 190, OthersAnswered: 18, Freed: Wait{20001, false}},
				HangSide{Pages: 12, PagesAnswered: 12, PageStatus: 503, PageWait: 3003, Workers: Held{1, 2},
					Others: 190, OthersAnswered: 190, Freed: Wait{6031, true}},
			},
			Unlocked: Pair[HangUnlocked]{
				HangUnlocked{Stays: Wait{2.3, true}, Leaves: Wait{1.8, true}},
				HangUnlocked{Stays: Wait{2999, true}, Leaves: Wait{2020, true}},
			},
		},
		Fleet: &Fleet{Requests: 40, Without: FleetSide{Total: 310, Answers: map[string]int{"200": 40}, Lost: 35},
			Alone: FleetSide{Total: 1120, Answers: map[string]int{"200": 40}, Lost: 19},
			With:  FleetSide{Total: 2230, Answers: map[string]int{"200": 40}}},
		Export: &Export{Without: ExportSide{14, 2.1, 3005}, Blind: ExportSide{0, 2803, 3004}, With: ExportSide{14, 3.2, 3006},
			Unlocked: Pair[ExportSide]{ExportSide{14, 1.9, 3003}, ExportSide{14, 4.1, 3007}}},
		Reloads: &Pair[Reloads]{Reloads{21, 21, 8620, Held{9, 10}}, Reloads{21, 5, 702, Held{1, 1}}},
	}
}

func TestTableIsAsItWasLookedAt(t *testing.T) {
	const golden = "testdata/table.txt"
	got := render(sample(), style{})
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestTableFitsIntoATerminal(t *testing.T) {
	slow := sample()
	slow.TwoScripts.Without.Total = 1234567
	slow.Bursts[0].Without.Before = Latency{1, 12345, 12345, 12345}
	slow.Bursts[0].Without.During = Latency{1, 12345, 12345, 12345}
	slow.Bursts[1].Skipped = strings.Repeat("one reason after the other, ", 10)
	slow.Bursts[2].Without.Answers = map[string]int{"200": 23, "502": 17}
	for _, f := range []*Figures{sample(), slow, {}} {
		for _, l := range strings.Split(render(f, style{}), "\n") {
			if n := utf8.RuneCountInString(l); n > 80 {
				t.Errorf("%d characters: %q", n, l)
			}
		}
	}
}

func TestTableShowsOnlyWhatWasRun(t *testing.T) {
	got := render(&Figures{Reloads: sample().Reloads}, style{})
	for _, title := range []string{"1  ", "2  ", "3  "} {
		if strings.Contains(got, "\n"+title) {
			t.Errorf("part %sis in the table of a run without it", title)
		}
	}
	if !strings.Contains(got, "\n4  ") {
		t.Error("part 4 is not in its table")
	}
}

func TestTableHasNoColourUnlessItMay(t *testing.T) {
	plain, coloured := render(sample(), style{}), render(sample(), style{colour: true})
	if strings.Contains(plain, "\x1b") {
		t.Error("the plain table has escape sequences")
	}
	var b strings.Builder
	for i, part := range strings.Split(coloured, "\x1b[") {
		if i > 0 {
			_, part, _ = strings.Cut(part, "m")
		}
		b.WriteString(part)
	}
	if b.String() != plain {
		t.Error("colour changes more than colour")
	}
}

// The table praises and blames by the figures alone, whichever column they are in.
func TestLess(t *testing.T) {
	for _, c := range []struct {
		name          string
		without, with float64
		want          better
	}{
		{"the gate is better", 10, 2, withBetter},
		{"the gate is worse", 2, 10, withoutBetter},
		{"nearly the same", 700, 705, neither},
		{"nothing lost at all", 0, 0, neither},
		{"nothing lost with the gate", 1, 0, withBetter},
		{"only lost with the gate", 0, 1, withoutBetter},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := less(c.without, c.with); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	got := strings.Join(wrap("a bc  def → ghijklmnop q", 7), "|")
	if want := "a bc|def →|ghijklmnop|q"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := wrap("", 7); got != nil {
		t.Errorf("got %q of nothing", got)
	}
}

func TestMillisInWords(t *testing.T) {
	for _, c := range []struct {
		ms          Millis
		plain, best string
	}{
		{0.04, "0.0 ms", "0.0 ms"},
		{9.96, "10 ms", "10 ms"},
		{9.94, "9.9 ms", "9.9 ms"},
		{999.4, "999 ms", "999 ms"},
		{1234.5, "1,234 ms", "1.2 s"},
		{1234567, "1,234,567 ms", "1234.6 s"},
	} {
		if got := c.ms.String(); got != c.plain {
			t.Errorf("%v: got %q, want %q", float64(c.ms), got, c.plain)
		}
		if got := c.ms.short(); got != c.best {
			t.Errorf("%v: got %q, want %q", float64(c.ms), got, c.best)
		}
	}
}

func TestFiguresComeBackFromJSON(t *testing.T) {
	var text strings.Builder
	if err := writeJSON(&text, sample()); err != nil {
		t.Fatal(err)
	}
	var got Figures
	if err := json.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatal(err)
	}
	if render(&got, style{}) != render(sample(), style{}) {
		t.Errorf("the table of the figures is another one after a round trip:\n%s", text.String())
	}
}

func TestAGateThatMayNotLookAtWorkersIsTold(t *testing.T) {
	f := sample()
	f.Hang.Files.With.Freed = Wait{20001, false}
	f.Export.Unlocked.With.Polls = 0
	text := strings.Join(strings.Fields(render(f, style{})), " ")
	for _, want := range []string{
		"as this gate may not end scripts: that takes root, or the helper of the packages",
		"This gate may not look into PHP-FPM's workers, which takes root or the helper of the packages",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report has no %q", want)
		}
	}
}
