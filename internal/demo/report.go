package demo

import (
	"fmt"
	"regexp"
	"strings"
)

// render tells the figures as a table, with what they mean in words.
func render(f *Figures, s style) string {
	head := fmt.Sprintf("One PHP session, with and without fpm-gate (nginx %s, PHP %s, %.0f s)", f.Nginx, f.PHP, f.Seconds)
	return "\n" + s.bold(head) + "\n\n" + tableOf(f.sections(), s) + closing(f, s)
}

// sections are the parts of the story that were run.
func (f *Figures) sections() []section {
	var all []section
	if f.TwoScripts != nil {
		all = append(all, tellTwoScripts(f.TwoScripts))
	}
	if f.Bursts != nil {
		all = append(all, tellBursts(f.Bursts))
	}
	if f.Hang != nil {
		all = append(all, tellHang(f.Hang))
	}
	if f.Reloads != nil {
		all = append(all, tellReloads(f.Reloads))
	}
	if f.Fleet != nil {
		all = append(all, tellFleet(f.Fleet))
	}
	if f.Export != nil {
		all = append(all, tellExport(f.Export))
	}
	return all
}

var minorVersion = regexp.MustCompile(`^\d+\.\d+`)

// closing shows how to put the gate in front of a site, and where to read on.
func closing(f *Figures, s style) string {
	php := "php" + minorVersion.FindString(f.PHP) + "-fpm.sock" // as Debian names it
	return s.bold("In front of your own site; more at https://github.com/fpm-gate/fpm-gate#readme") + "\n" +
		indent + "fpm-gate serve --listen unix:/run/fpm-gate/www.sock \\\n" +
		indent + "               --upstream unix:/run/php/" + php + "\n" +
		indent + "nginx: fastcgi_pass unix:/run/fpm-gate/www.sock;  # was " + php + "\n"
}

func tellTwoScripts(p *Pair[TwoScripts]) section {
	return section{
		title: fmt.Sprintf("1  Two scripts of %v at once, in one session", millis(twoWork)),
		blocks: []block{{
			rows: []row{
				measured(p, "both are answered after", func(t TwoScripts) (string, float64) {
					return t.Total.String(), float64(t.Total)
				}),
				measured(p, workersLabel, func(t TwoScripts) (string, float64) {
					return fmt.Sprint(t.Workers.Most), float64(t.Workers.Most)
				}),
			},
			words: fmt.Sprintf("The second script waits either way: without the gate in a worker (%d held), with it in the"+
				" gate (%d held).", p.Without.Workers.Most, p.With.Workers.Most),
		}},
	}
}

func tellBursts(bursts []Burst) section {
	s := section{title: fmt.Sprintf("2  %d AJAX requests of %v in one session, while other visitors browse",
		burstRequests, millis(burstWork))}
	for _, b := range bursts {
		s.blocks = append(s.blocks, tellBurst(b))
	}
	return s
}

// conditionsOf are the session handlers' names in the table.
var conditionsOf = map[string]string{
	"files":     "Sessions in files",
	"memcached": "Sessions in memcached",
	"unlocked":  "Sessions that PHP does not lock",
}

func tellBurst(b Burst) block {
	if b.Skipped != "" {
		return block{conditions: conditionsOf[b.Handler], skipped: b.Skipped}
	}
	return block{
		conditions: conditionsOf[b.Handler],
		rows: []row{
			measured(b.Pair, "others' p50, before → during", func(s BurstSide) (string, float64) {
				return change(s.Before.P50, s.During.P50)
			}),
			measured(b.Pair, "others' p99", func(s BurstSide) (string, float64) { return change(s.Before.P99, s.During.P99) }),
			measured(b.Pair, "others' slowest page", func(s BurstSide) (string, float64) {
				return change(s.Before.Max, s.During.Max)
			}),
			measured(b.Pair, workersLabel, func(s BurstSide) (string, float64) { return s.Workers.row() }),
			measured(b.Pair, "updates of the session lost", func(s BurstSide) (string, float64) {
				return fmt.Sprintf("%d of %d", s.Lost, s.Requests), float64(s.Lost)
			}),
			measured(b.Pair, "answers by status", func(s BurstSide) (string, float64) { return statuses(s.Answers), 0 }),
			measured(b.Pair, "all are answered after", func(s BurstSide) (string, float64) {
				return s.Total.seconds(), float64(s.Total)
			}),
		},
		words: burstWords(b),
	}
}

// burstWords describes what a burst did to others and to its own session, and the cost of the gate.
func burstWords(b Burst) string {
	without, with := b.Without, b.With
	words := []string{fmt.Sprintf("Without the gate the burst holds %s, and others wait up to %s for a page; with it %s,"+
		" and up to %s.", workersHeld(without.Workers.Median), without.During.Max.short(),
		workersHeld(with.Workers.Median), with.During.Max.short())}
	if n := without.Failed + with.Failed; n > 0 {
		words = append(words, fmt.Sprintf("Of the others' pages %d fail without the gate, %d with it.",
			without.Failed, with.Failed))
	}
	if without.Lost > 0 || with.Lost > 0 {
		words = append(words, fmt.Sprintf("%s %d of %d updates are lost without the gate, %d with it.",
			lossReasons[b.Handler], without.Lost, without.Requests, with.Lost))
	}
	if b.Handler == "unlocked" {
		words = append(words, fmt.Sprintf("The cost: one at a time takes %s instead of %s.",
			with.Total.seconds(), without.Total.seconds()))
	}
	return strings.Join(words, " ")
}

// lossReasons start the sentence about lost updates.
var lossReasons = map[string]string{
	"memcached": "php-memcached soon gives up waiting for its lock, and the script goes on without a session:",
	"unlocked":  "Scripts overwrite each other's session, as with phpredis and most frameworks:",
}

func tellHang(h *Hang) section {
	return section{
		title: fmt.Sprintf("3  A script hangs for a minute, and its visitor opens %d more pages", hangPages),
		blocks: []block{{
			conditions: conditionsOf["files"],
			rows: []row{
				measured(&h.Files, "the visitor's other pages", func(s HangSide) (string, float64) { return h.pages(s) }),
				measured(&h.Files, workersLabel, func(s HangSide) (string, float64) { return s.Workers.row() }),
				measured(&h.Files, "other visitors who get a page", func(s HangSide) (string, float64) {
					return fmt.Sprintf("%d of %d", s.OthersAnswered, s.Others), float64(s.Others - s.OthersAnswered)
				}),
				measured(&h.Files, "the session works again after", func(s HangSide) (string, float64) {
					return h.freed(s.Freed)
				}),
			},
			words: hangWords(&h.Files),
		}, {
			conditions: conditionsOf["unlocked"],
			rows: []row{
				h.unlockedRow("the session works again after", func(u HangUnlocked) Wait { return u.Stays }),
				h.unlockedRow("… once its visitor hangs up", func(u HangUnlocked) Wait { return u.Leaves }),
			},
			words: fmt.Sprintf("Without the gate there is no lock at all, and updates get lost, as in part 2. With it the lock"+
				" ends by its expiry (%s here) or, after a hang-up, by abandon_after (%s here).",
				millis(hangExpiry).whole(), millis(hangAbandonAfter).whole()),
		}},
	}
}

// pages describes what happened to the pages that the visitor opened while a script hung.
func (h *Hang) pages(s HangSide) (string, float64) {
	if s.PagesAnswered == 0 {
		return "no answer in " + h.Bound.whole(), float64(h.Bound)
	}
	return fmt.Sprintf("%d after %s", s.PageStatus, s.PageWait.seconds()), float64(s.PageWait)
}

func (h *Hang) freed(w Wait) (string, float64) {
	if !w.Done {
		return "> " + h.Bound.whole(), float64(h.Bound)
	}
	return w.Took.short(), float64(w.Took)
}

// unlockedRow has no figures to compare: without a lock, no request waits for it.
func (h *Hang) unlockedRow(label string, wait func(HangUnlocked) Wait) row {
	without, _ := h.freed(wait(h.Unlocked.Without))
	with, _ := h.freed(wait(h.Unlocked.With))
	return row{label: label, without: without + ", no lock", with: with}
}

func hangWords(p *Pair[HangSide]) string {
	without, with := p.Without, p.With
	words := fmt.Sprintf("Without the gate each page takes a worker: %s held, and %d of %d other visitors get nothing."+
		" With it %s held, %d get nothing, and the visitor is asked to try again after max_wait (%s here).",
		workersAre(without.Workers.Median), without.Others-without.OthersAnswered, without.Others,
		workersAre(with.Workers.Median), with.Others-with.OthersAnswered, millis(hangMaxWait).whole())
	if !with.Freed.Done {
		return words + " PHP's own lock on the file lasts as long as the script, as this gate may not end scripts:" +
			" that takes root, or the helper of the packages."
	}
	return words + fmt.Sprintf(" With on_expiry = \"terminate\" PHP ends the script, as at max_execution_time, when it"+
		" has held its session for expiry (%s here): its own lock is free too.", millis(hangTerminate).whole())
}

func tellReloads(p *Pair[Reloads]) section {
	return section{
		title: fmt.Sprintf("4  A visitor reloads a page of %v %d times, once every %v",
			millis(reloadWork), reloadTimes, millis(reloadEvery)),
		blocks: []block{{
			rows: []row{
				measured(p, "scripts that PHP runs", func(r Reloads) (string, float64) {
					return fmt.Sprintf("%d for %d requests", r.Scripts, r.Requests), float64(r.Scripts)
				}),
				measured(p, "the last reload is answered after", func(r Reloads) (string, float64) {
					return r.Last.seconds(), float64(r.Last)
				}),
				measured(p, workersLabel, func(r Reloads) (string, float64) { return r.Workers.row() }),
			},
			words: fmt.Sprintf("The browser hangs up on all pages but the last. Without the gate PHP generates %d, and the"+
				" last one takes %s; with it %d, and %s.",
				p.Without.Scripts, p.Without.Last.seconds(), p.With.Scripts, p.With.Last.seconds()),
		}},
	}
}

func tellFleet(f *Fleet) section {
	s := section{title: fmt.Sprintf("5  %d requests of %v in one session, spread over %d hosts by a load balancer",
		f.Requests, millis(fleetWork), fleetHosts)}
	b := block{conditions: "Sessions in a memcached, unlocked", skipped: f.Skipped}
	if f.Skipped == "" {
		p := &Pair[FleetSide]{f.Without, f.With}
		b.rows = []row{
			measured(p, "updates of the session lost", func(s FleetSide) (string, float64) {
				return fmt.Sprintf("%d of %d", s.Lost, f.Requests), float64(s.Lost)
			}),
			measured(p, "answers by status", func(s FleetSide) (string, float64) { return statuses(s.Answers), 0 }),
			{label: "all are answered after", without: f.Without.Total.seconds(), with: f.With.Total.seconds()},
		}
		b.words = fmt.Sprintf("Both hosts' scripts overwrite each other's session: %d of %d updates are lost. With a gate on"+
			" each host, each with its own locks, %d are lost; with store = \"memcached\" they share their locks, and %d"+
			" are lost.", f.Without.Lost, f.Requests, f.Alone.Lost, f.With.Lost)
	}
	s.blocks = []block{b}
	return s
}

func tellExport(e *Export) section {
	return section{
		title: fmt.Sprintf("6  An export of %s closes its session, and a progress bar polls every %v",
			millis(exportWork).whole(), millis(exportEvery)),
		blocks: []block{{
			conditions: conditionsOf["files"],
			rows:       exportRows(&Pair[ExportSide]{e.Without, e.With}),
			words: fmt.Sprintf("A script can close its session so that other requests need not wait for it, and the gate sees"+
				" that: the bar moves %d times without the gate and %d times with it. A gate that does not look holds its"+
				" lock until the export ends: the bar moves %d times.",
				e.Without.Polls, e.With.Polls, e.Blind.Polls),
		}, {
			conditions: conditionsOf["unlocked"],
			rows:       exportRows(&e.Unlocked),
			words:      unlockedExportWords(&e.Unlocked),
		}},
	}
}

func exportRows(p *Pair[ExportSide]) []row {
	return []row{
		measured(p, "times that the bar moves", func(s ExportSide) (string, float64) { return fmt.Sprint(s.Polls), 0 }),
		measured(p, "its slowest poll", func(s ExportSide) (string, float64) { return s.Slowest.String(), 0 }),
		measured(p, "the export is answered after", func(s ExportSide) (string, float64) { return s.Total.seconds(), 0 }),
	}
}

func unlockedExportWords(p *Pair[ExportSide]) string {
	if p.With.Polls == 0 && p.Without.Polls > 0 {
		return "No lock shows when PHP closes such a session. This gate may not look into PHP-FPM's workers, which takes" +
			" root or the helper of the packages, so its lock lasts until the export ends."
	}
	return "No lock shows when PHP closes such a session. The gate sees it in PHP-FPM's worker."
}
