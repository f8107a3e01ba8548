package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// watch samples how many workers of a PHP-FPM are held.
type watch struct {
	cancel context.CancelFunc
	done   chan struct{}
	held   []int // the samples
	err    error
}

const watchEvery = 20 * time.Millisecond

// watch starts to sample a side's workers.
func (s *story) watch(ctx context.Context, sd *side) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{cancel: cancel, done: make(chan struct{})}
	go w.run(ctx, sd, s.progress)
	return w
}

func (w *watch) run(ctx context.Context, sd *side, p *progress) {
	defer close(w.done)
	for ; ctx.Err() == nil && w.err == nil; pause(ctx, watchEvery) {
		var held int
		held, _, w.err = sd.workers()
		w.held = append(w.held, held)
		p.busy(sd, held)
	}
}

// end returns the samples.
func (w *watch) end() (Held, error) {
	w.cancel()
	<-w.done
	if w.err != nil || len(w.held) == 0 {
		return Held{}, w.err
	}
	slices.Sort(w.held)
	return Held{Median: w.held[len(w.held)/2], Most: w.held[len(w.held)-1]}, nil
}

// workers returns how many workers of the side's PHP-FPM a connection holds, and how many connections wait for one.
//
// The figures come from the kernel, because PHP-FPM's status page counts every request on a kept connection as one more
// busy worker until it recounts a second later (111 of 10 were seen). The kernel's list is not of one moment: a worker
// may be in it both with the connection that it has just closed and with the next.
func (sd *side) workers() (held, queued int, err error) {
	list, err := os.Open("/proc/net/unix")
	if err != nil {
		return 0, 0, fmt.Errorf("count busy workers: %w", err)
	}
	defer list.Close()
	accepted, waiting, err := countConns(list, sd.php.Addr.Address)
	return min(accepted, workers), waiting, err
}

// countConns reads the kernel's list of Unix sockets: a connection to path that was accepted has the path, the state 03
// and an inode; one that was not yet has the state 02 and the inode 0.
func countConns(list io.Reader, path string) (accepted, waiting int, err error) {
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // Num RefCount Protocol Flags Type St Inode Path
		if len(fields) != 8 || fields[7] != path {
			continue
		}
		switch fields[5] {
		case "03":
			accepted++
		case "02":
			waiting++
		}
	}
	return accepted, waiting, lines.Err()
}

// until waits until the number of connections at PHP-FPM, with a worker or without, is as wanted, or until a timeout.
func (sd *side) until(ctx context.Context, wanted func(conns int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		held, queued, err := sd.workers()
		if err != nil || wanted(held+queued) {
			return err
		}
		if pause(ctx, time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("%d workers are held and %d connections wait: %w", held, queued, ctx.Err())
		}
	}
}

func idle(conns int) bool { return conns == 0 }

// scripts counts the scripts that PHP-FPM has run for a page, by its access log.
func (sd *side) scripts(page string) (int, error) {
	log, err := os.ReadFile(sd.log)
	return strings.Count(string(log), "GET "+page+" "), err
}

// warmUp makes most workers run each page once, so that none is read and compiled during a measurement.
func (sd *side) warmUp(ctx context.Context) error {
	v, err := newVisitor(ctx, sd)
	if err != nil {
		return err
	}
	defer v.leave()
	for range 3 {
		v.getAll(ctx, workers, helloPage)
	}
	if _, err := v.count(ctx); err != nil {
		return err
	}
	return sd.until(ctx, idle)
}
