package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// The second part: a burst of requests of one session, while other visitors browse.
const (
	burstRequests = 40
	burstWork     = 100 * time.Millisecond
	burstBefore   = time.Second           // with the other visitors only
	burstOthers   = 10 * time.Millisecond // between two other visitors
)

// handler is a session handler of PHP.
type handler struct {
	name string // in the figures
	now  string // in the progress
	// settings returns PHP's settings for it, or the reason why it is skipped.
	settings func(*story) (ini map[string]string, skipped string, err error)
}

var handlers = []handler{
	{"files", "sessions in files", func(*story) (map[string]string, string, error) { return nil, "", nil }},
	{"memcached", "sessions in memcached", (*story).memcached},
	{"unlocked", "unlocked sessions", func(s *story) (map[string]string, string, error) {
		ini, err := s.unlocked()
		return ini, "", err
	}},
}

func (s *story) bursts(ctx context.Context) error {
	s.progress.begin()
	for i, h := range handlers {
		ini, skipped, err := h.settings(s)
		b := Burst{Handler: h.name, Skipped: skipped}
		if err == nil && skipped == "" {
			b.Pair, err = s.burst(ctx, h, "2"+string(rune('a'+i)), ini)
		}
		if err != nil {
			return fmt.Errorf("session handler %s: %w", h.name, err)
		}
		s.figures.Bursts = append(s.figures.Bursts, b)
	}
	return nil
}

// memcached starts a memcached, and returns the settings that keep sessions there with all defaults, which include
// locks.
func (s *story) memcached() (ini map[string]string, skipped string, err error) {
	for _, name := range []string{"php-memcached", "memcached"} {
		if _, err := rig.Find(name); errors.Is(err, rig.ErrMissing) {
			return nil, name + " is not installed", nil
		}
	}
	if loaded, err := hasExtension("memcached"); err != nil || !loaded {
		return nil, "PHP-FPM does not load php-memcached", err
	}
	m, err := s.rig.Memcached(rig.StoreOptions{})
	if err != nil {
		return nil, "", err
	}
	return rig.MemcachedSessions(m), "", nil
}

// hasExtension reports whether PHP-FPM loads an extension: a file that exists may be of another version, or not
// enabled.
func hasExtension(name string) (bool, error) {
	path, err := rig.Find("php-fpm")
	if err != nil {
		return false, err
	}
	list, err := exec.Command(path, "-m").Output()
	if err != nil {
		return false, fmt.Errorf("ask PHP-FPM for its extensions: %w", err)
	}
	return slices.Contains(strings.Fields(string(list)), name), nil
}

func (s *story) burst(
	ctx context.Context, h handler, name string, ini map[string]string,
) (p *Pair[BurstSide], err error) {
	st, err := s.stage(name, conditions{ini: ini})
	if err != nil {
		return nil, err
	}
	defer st.stop(&err)
	p = new(Pair[BurstSide])
	for _, sd := range st.sides() {
		s.progress.step("%d AJAX requests, %s, %v", burstRequests, h.now, sd)
		if *p.of(sd), err = s.burstOn(ctx, sd); err != nil {
			return nil, fmt.Errorf("%v: %w", sd, err)
		}
	}
	return p, nil
}

// burstOn measures one column.
func (s *story) burstOn(ctx context.Context, sd *side) (b BurstSide, err error) {
	if err := sd.warmUp(ctx); err != nil {
		return b, err
	}
	v, err := newVisitor(ctx, sd)
	if err != nil {
		return b, err
	}
	defer v.leave()
	others := startCrowd(ctx, sd, burstOthers)
	defer others.depart()
	opened := time.Now()
	pause(ctx, burstBefore)

	w := s.watch(ctx, sd)
	began := time.Now()
	answers := v.getAll(ctx, burstRequests, workPage(burstWork))
	ended := time.Now()
	if b.Workers, err = w.end(); err != nil {
		return b, err
	}
	others.depart()

	var failedBefore, failedDuring int
	b.Before, failedBefore = sumUp(others.between(opened, began))
	b.During, failedDuring = sumUp(others.between(began, ended))
	b.Failed = failedBefore + failedDuring
	b.Total, b.Requests, b.Answers = millis(ended.Sub(began)), len(answers), byStatus(answers)
	b.Lost, err = lostUpdates(ctx, v, answers)
	return b, err
}

// lostUpdates compares the session's counter, which was 1 before, with the number of requests that PHP answered as if
// it had counted them.
func lostUpdates(ctx context.Context, v *visitor, answers []answer) (int, error) {
	count, err := v.count(ctx)
	if err != nil {
		return 0, err
	}
	return lost(count, answers), nil
}

func lost(count int, answers []answer) int {
	should := 1
	for _, a := range answers {
		if a.status == http.StatusOK {
			should++
		}
	}
	return max(0, should-count)
}

// byStatus counts answers.
func byStatus(answers []answer) map[string]int {
	counts := make(map[string]int)
	for _, a := range answers {
		name := strconv.Itoa(a.status)
		if a.status == 0 {
			name = "broken"
		}
		counts[name]++
	}
	return counts
}
