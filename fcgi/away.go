package fcgi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// While PHP-FPM restarts, its socket refuses connections or is gone. With PoolOptions.UnreachableWait, requests wait in
// the pool's queue until it is back, and are sent then. A PHP-FPM that stays away for longer is down: from then on each
// request fails at once, so that the web server can fail over, until a connection succeeds.

const (
	// maxAwaiting bounds the queue while PHP-FPM is away or the pool is paused. Further requests are refused at once.
	maxAwaiting = 1000
	// How often an address is tried while PHP-FPM is away, and how long one attempt may take.
	knockPause   = 20 * time.Millisecond
	knockTimeout = time.Second
)

// outage is a time in which no address of PHP-FPM can be connected to. The pool's lock guards it.
type outage struct {
	since  time.Time
	err    error // of the last attempt
	over   bool  // it has been waited for long enough
	waited int   // requests
}

// awaited reports whether requests wait for the end of the outage. There may be none.
func (o *outage) awaited() bool { return o != nil && !o.over }

func (o *outage) error() error {
	return fmt.Errorf("%w: %w, for %v", ErrUnreachable, o.err, time.Since(o.since).Round(time.Millisecond))
}

// isAway reports whether err, of an attempt to connect, is what a PHP-FPM that restarts leaves behind: it refuses, its
// socket is gone, or the name of its container is.
func isAway(err error) bool {
	name, is := errors.AsType[*net.DNSError](err)
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || is && name.IsNotFound
}

// awaitReturn gives up the place of a request that could not connect, by err, and waits for PHP-FPM's return, if that
// is to be expected.
func (p *Pool) awaitReturn(ctx context.Context, until time.Time, err error) (*upstream, error) {
	p.mu.Lock()
	p.open--
	if p.options.UnreachableWait > 0 && p.away == nil && isAway(err) {
		p.away = &outage{since: time.Now(), err: err}
		go p.knock(p.away)
		if p.options.Away != nil {
			p.options.Away(err)
		}
	}
	if !p.away.awaited() {
		p.grant()
		p.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	p.away.err = err
	return p.wait(ctx, until, true)
}

// knock tries to connect until PHP-FPM is back, or has been waited for long enough.
func (p *Pool) knock(o *outage) {
	for time.Since(o.since) < p.options.UnreachableWait {
		time.Sleep(min(knockPause, time.Until(o.since.Add(p.options.UnreachableWait))))
		for _, b := range p.backends {
			nc, err := dial(context.Background(), b.addr, knockTimeout)
			if err == nil {
				_ = nc.Close()
			}
			if err == nil || errors.Is(err, unix.EAGAIN) { // its backlog is full
				p.reached()
				return
			}
			p.knocked(o, b, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o.over = true
	p.grantAll() // each finds out by itself
}

// knocked notes an attempt to connect to b that has failed.
func (p *Pool) knocked(o *outage, b *backend, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.downUntil = time.Now().Add(downTime)
	o.err = err
}

// reached notes that PHP-FPM can be connected to.
func (p *Pool) reached() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isBack()
}

// isBack lets the requests go on that have waited for PHP-FPM's return. It is called with the lock held.
func (p *Pool) isBack() {
	o := p.away
	if o == nil {
		return
	}
	p.away = nil
	p.grantAll()
	if p.options.Back != nil {
		p.options.Back(time.Since(o.since), o.waited)
	}
}

// refusal returns why a request cannot queue; nil: it can. It counts one that waits for PHP-FPM's return. It is called
// with the lock held.
func (p *Pool) refusal() error {
	full := p.queue.Len() >= maxAwaiting
	switch {
	case p.paused && full:
		return fmt.Errorf("%w: %d requests wait already", ErrPaused, maxAwaiting)
	case !p.away.awaited():
	case full:
		return fmt.Errorf("%w, and %d requests wait already", p.away.error(), maxAwaiting)
	default:
		p.away.waited++
		p.stats.Returns++
	}
	return nil
}

// Pause keeps all requests that have no connection yet in the queue, until Resume.
func (p *Pool) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	for p.closeOneIdle() {
	}
}

// Resume ends a pause.
func (p *Pool) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
	p.grantAll()
}
