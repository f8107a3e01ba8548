package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress shows what is happening: on a terminal in one line, which it rewrites and finally removes; elsewhere in a
// line per step.
type progress struct {
	out   io.Writer
	parts int
	width int // of the terminal; 0: not a terminal
	began time.Time
	done  chan struct{} // closed to stop drawing
	drawn sync.WaitGroup

	mu      sync.Mutex
	part    int
	now     string
	workers Pair[gauge]
}

// gauge is the number of busy workers of a side, if it is known.
type gauge struct {
	busy  int
	known bool
}

func newProgress(out io.Writer, wanted []int) *progress {
	p := &progress{out: out, parts: len(wanted), width: terminalWidth(out), began: time.Now(), done: make(chan struct{})}
	takes := time.Duration(0)
	for _, n := range wanted {
		takes += parts[n-1].takes
	}
	fmt.Fprintf(out, "nginx and PHP-FPM with and without fpm-gate: about %.0f s in all; press Ctrl-C to stop\n",
		takes.Seconds())
	if p.width > 0 {
		p.drawn.Go(p.draw)
	}
	return p
}

// begin starts the next part.
func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part++
	p.now = "starting the servers"
	p.workers = Pair[gauge]{}
}

// step sets what is happening.
func (p *progress) step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = fmt.Sprintf(format, args...)
	p.workers = Pair[gauge]{}
	if p.width == 0 {
		fmt.Fprintf(p.out, "%d/%d %s\n", p.part, p.parts, p.now)
	}
}

// busy sets the number of busy workers of a side.
func (p *progress) busy(sd *side, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.workers.of(sd) = gauge{n, true}
}

// end removes the line.
func (p *progress) end() {
	close(p.done)
	p.drawn.Wait()
}

const clearLine = "\r\x1b[K"

func (p *progress) draw() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			io.WriteString(p.out, clearLine+fit(p.line(time.Since(p.began)), p.width-1))
		case <-p.done:
			io.WriteString(p.out, clearLine)
			return
		}
	}
}

func (p *progress) line(elapsed time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%2.0f s  %d/%d %s", elapsed.Seconds(), p.part, p.parts, p.now)
	for _, g := range []gauge{p.workers.Without, p.workers.With} {
		if g.known {
			line += "  " + bar(g.busy)
		}
	}
	return line
}

// bar shows how many of a pool's workers are busy.
func bar(busy int) string {
	busy = min(busy, workers)
	return strings.Repeat("■", busy) + strings.Repeat("·", workers-busy)
}

// fit cuts a line to a width, so that it stays one line.
func fit(line string, width int) string {
	if runes := []rune(line); len(runes) > max(width, 0) {
		return string(runes[:max(width, 0)])
	}
	return line
}
