package fcgi

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// PoolOptions say where PHP-FPM is and how many connections it may have to serve.
type PoolOptions struct {
	Addrs          []netaddr.Addr
	ConnectTimeout time.Duration // of one attempt; zero: none
	MaxConnections int           // at once, to all addresses; zero: no limit
	QueueTimeout   time.Duration // waiting for one of them, for PHP-FPM's return or for the end of a pause
	// UnreachableWait is how long after its first refused connection PHP-FPM is waited for, as while it restarts. Zero:
	// a request fails at once.
	UnreachableWait time.Duration
	Reuse           time.Duration // how long a connection is used again after it was dialled; zero: never
	Idle            time.Duration // how long it may wait for that
	// Away is called when requests begin to wait for PHP-FPM's return, and Back when it is there again, with how long it
	// was away and how many requests have waited. They may be nil, and must not block.
	Away func(error)
	Back func(away time.Duration, waited int)
}

// Errors of a Pool. They say which answer the request gets.
var (
	// ErrUnreachable is returned for a request if no address could be connected to.
	ErrUnreachable = errors.New("PHP-FPM cannot be reached")
	// ErrQueueTimeout is returned for a request that waited for one of MaxConnections for too long.
	ErrQueueTimeout = errors.New("all connections to PHP-FPM are busy")
	// ErrPaused is returned when a request has waited for QueueTimeout while the pool was paused, or too many wait.
	ErrPaused = errors.New("an operator has paused the gate")
)

// Pool hands out connections to PHP-FPM. A connection that stays open pins its worker, which serves no one
// else meanwhile; so a pooled one waits for its next request for a moment only, and is closed at once where
// a request may be queueing for the worker behind it.
type Pool struct {
	options PoolOptions

	mu         sync.Mutex
	backends   []*backend
	open       int       // connections, busy and idle
	following  int       // connections of scripts that go on after their response, which are not open
	queue      list.List // of chan *upstream: who waits for a connection, first in, first out
	paused     bool      // no request gets a connection
	away       *outage   // nil: PHP-FPM can be connected to, as far as is known
	unanswered list.List // of *upstream: fresh ones whose request has not got its first byte, oldest first
	sweeper    *time.Timer
	closed     bool
	stats      PoolStats
}

// PoolStats count what a pool has done since it was made.
type PoolStats struct {
	Open, Idle, Queued int    // now
	Running            int    // requests that have a connection now, and scripts that are followed after their response
	Dialling           int    // of Running: requests whose connection is being made
	Dials, Reuses      uint64 // connections made, and requests that went over one that was there
	DialErrors         uint64
	Retries            uint64 // requests sent again because their pooled connection had been closed
	Returns            uint64 // requests that waited for PHP-FPM's return
}

const (
	// A connection that failed is not tried again for this long while other addresses are there.
	downTime = time.Second
	// A fresh connection that is silent for this long may still stand in PHP-FPM's backlog, because all workers
	// are taken.
	backlogSuspicion = 2 * time.Millisecond
)

// NewPool makes a pool. It connects when it is asked to.
func NewPool(options PoolOptions) *Pool {
	p := &Pool{options: options}
	for _, a := range options.Addrs {
		p.backends = append(p.backends, &backend{addr: a})
	}
	return p
}

// get returns a connection of the least busy address: a pooled one if there is one, else a new one. It waits for a
// place among MaxConnections, for PHP-FPM's return and for the end of a pause: at most QueueTimeout, or until ctx is
// done.
func (p *Pool) get(ctx context.Context) (*upstream, error) {
	p.mu.Lock()
	if p.paused {
		return p.wait(ctx, time.Time{}, false) // unlocks
	}
	if u := p.takeIdle(); u != nil {
		p.mu.Unlock()
		return p.checked(ctx, u, time.Time{})
	}
	if p.away.awaited() || p.full() && !p.closeOneIdle() {
		return p.wait(ctx, time.Time{}, false)
	}
	p.open++
	p.mu.Unlock()
	return p.dial(ctx, time.Time{})
}

func (p *Pool) full() bool {
	return p.options.MaxConnections > 0 && p.open >= p.options.MaxConnections
}

// checked returns u, a pooled connection, or a new one in its place if PHP-FPM has closed u or sent anything on it
// since its last end request.
func (p *Pool) checked(ctx context.Context, u *upstream, until time.Time) (*upstream, error) {
	if u.quiet() {
		return u, nil
	}
	return p.replace(ctx, u, until)
}

// takeIdle takes a pooled connection, of the least busy address that has one.
func (p *Pool) takeIdle() *upstream {
	var best *backend
	for _, b := range p.backends {
		if len(b.idle) > 0 && (best == nil || b.busy < best.busy) {
			best = b
		}
	}
	if best == nil {
		return nil
	}
	last := len(best.idle) - 1
	u := best.idle[last]
	best.idle[last] = nil
	best.idle = best.idle[:last]
	best.busy++
	u.reused = true
	p.stats.Reuses++
	return u
}

// closeOneIdle makes room for one more connection.
func (p *Pool) closeOneIdle() bool {
	for _, b := range p.backends {
		if len(b.idle) > 0 {
			u := b.idle[0]
			b.idle = slices.Delete(b.idle, 0, 1)
			p.open--
			u.close()
			return true
		}
	}
	return false
}

// wait queues for a connection, until then or, if that is zero, for QueueTimeout. First: at the head of the queue. It
// is called with the lock held, and gives it up.
func (p *Pool) wait(ctx context.Context, until time.Time, first bool) (*upstream, error) {
	if err := p.refusal(); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	turn := make(chan *upstream, 1)
	place := p.queueUp(turn, first)
	p.mu.Unlock()
	if until.IsZero() {
		until = time.Now().Add(p.options.QueueTimeout)
	}
	timeout := time.NewTimer(time.Until(until))
	defer timeout.Stop()
	var err error
	select {
	case u := <-turn:
		return p.accept(ctx, u, until)
	case <-timeout.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.mu.Lock()
	if err == nil {
		err = p.queueTimeout()
	}
	p.queue.Remove(place)
	p.mu.Unlock()
	select {
	case u := <-turn: // it came in the last moment
		if u == nil {
			p.forgetOne()
		} else {
			p.put(u, true)
		}
	default:
	}
	return nil, err
}

func (p *Pool) queueUp(turn chan *upstream, first bool) *list.Element {
	if first {
		return p.queue.PushFront(turn)
	}
	return p.queue.PushBack(turn)
}

// queueTimeout returns the error of a request that has waited for QueueTimeout. It is called with the lock held.
func (p *Pool) queueTimeout() error {
	waited := p.options.QueueTimeout
	switch {
	case p.paused:
		return fmt.Errorf("%w: it has waited for %v", ErrPaused, waited)
	case p.away.awaited():
		return p.away.error()
	}
	return fmt.Errorf("%w: all %d, for %v", ErrQueueTimeout, p.options.MaxConnections, waited)
}

// accept takes a turn in the queue: a connection, or with nil the right to make one.
func (p *Pool) accept(ctx context.Context, u *upstream, until time.Time) (*upstream, error) {
	if u == nil {
		return p.dial(ctx, until)
	}
	return p.checked(ctx, u, until)
}

// replace makes a connection in the place of one that was taken to be used again, and turned out not to be fit for it.
func (p *Pool) replace(ctx context.Context, u *upstream, until time.Time) (*upstream, error) {
	p.mu.Lock()
	u.backend.busy--
	if u.reused { // not if it was a fresh one that was announced
		p.stats.Reuses--
	}
	u.close()
	if p.paused {
		p.open--
		return p.wait(ctx, until, true)
	}
	p.mu.Unlock()
	return p.dial(ctx, until)
}

// redial makes a connection in the place of one that PHP-FPM had closed before it took the request. The pooled ones of
// the same age are not to be trusted either: they are closed.
func (p *Pool) redial(ctx context.Context, u *upstream) (*upstream, error) {
	p.mu.Lock()
	for p.closeOneIdle() {
	}
	p.forgetUnanswered(u)
	p.mu.Unlock()
	return p.replace(ctx, u, time.Time{})
}

// dial makes a connection, for which a place has been taken. It tries each address once. If PHP-FPM is away, it gives
// the place up, and waits for its return until then.
func (p *Pool) dial(ctx context.Context, until time.Time) (*upstream, error) {
	var errs []error
	var tried []*backend
	for {
		b := p.leastBusy(tried)
		if b == nil {
			return p.awaitReturn(ctx, until, errors.Join(errs...))
		}
		nc, err := dial(ctx, b.addr, p.options.ConnectTimeout)
		if err == nil {
			p.connected(b)
			return &upstream{nc: nc, backend: b, dialled: time.Now()}, nil
		}
		tried = append(tried, b)
		errs = append(errs, err)
		p.dialFailed(b, ctx.Err() != nil)
		if ctx.Err() != nil {
			p.forgetOne()
			return nil, context.Cause(ctx)
		}
	}
}

// dialFailed notes that b could not be connected to. Where the request was given up meanwhile, that says nothing of b.
func (p *Pool) dialFailed(b *backend, givenUp bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.busy--
	b.dialling--
	if !givenUp {
		b.downUntil = time.Now().Add(downTime)
		p.stats.DialErrors++
	}
}

// connected notes that a connection to b has been made.
func (p *Pool) connected(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.dialling--
	p.isBack()
}

// leastBusy picks the address to connect to, and counts the connection there. Those that are down come last.
func (p *Pool) leastBusy(tried []*backend) *backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *backend
	var bestDown bool
	for _, b := range p.backends {
		if slices.Contains(tried, b) {
			continue
		}
		down := len(p.backends) > 1 && (b.health == Failing || b.downUntil.After(time.Now()))
		if best == nil || (bestDown && !down) || (bestDown == down && b.busy < best.busy) {
			best, bestDown = b, down
		}
	}
	if best != nil {
		best.busy++
		best.dialling++
		p.stats.Dials++
	}
	return best
}

// forgetOne gives a place among MaxConnections to the next in the queue.
func (p *Pool) forgetOne() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.grant()
}

// grant lets the first in the queue make a connection, if there is a place for it.
func (p *Pool) grant() {
	if p.full() || p.paused || p.away.awaited() {
		return
	}
	if turn := p.next(); turn != nil {
		p.open++
		turn <- nil
	}
}

// grantAll lets all in the queue make a connection, as far as there are places for them.
func (p *Pool) grantAll() {
	for n := p.queue.Len(); n > 0; n-- {
		p.grant()
	}
}

// next takes the first out of the queue.
func (p *Pool) next() chan<- *upstream {
	front := p.queue.Front()
	if front == nil {
		return nil
	}
	return p.queue.Remove(front).(chan *upstream)
}

// keeps reports whether u may serve another request. Over TCP nothing shows whether its worker is back from its
// script, nor, once a relay stands in between, whether it had taken a request before it went.
func (p *Pool) keeps(u *upstream) bool { return p.options.Reuse > 0 && u.isUnix() }

// put ends a request's use of u. Only a connection on which the request has been answered to its end, and on
// which nothing else is to come, is reusable.
func (p *Pool) put(u *upstream, reusable bool) {
	now := time.Now()
	p.mu.Lock()
	u.backend.busy--
	p.forgetUnanswered(u)
	if !reusable || p.closed || p.paused || !p.keeps(u) || u.id == lastID || now.Sub(u.dialled) >= p.options.Reuse {
		p.open--
		p.grant()
		p.mu.Unlock()
		u.close()
		return
	}
	defer p.mu.Unlock()
	if turn := p.next(); turn != nil {
		u.backend.busy++
		u.reused = true
		p.stats.Reuses++
		turn <- u
		return
	}
	if p.mayQueueBehind(now) {
		p.open--
		u.close()
		return
	}
	u.idle = now
	u.backend.idle = append(u.backend.idle, u)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(p.options.Idle, p.sweep)
	}
}

// lose takes u out of the pool: it stays open for a script that goes on after its response. Until forget is called, it
// counts as one that is followed.
func (p *Pool) lose(u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.following++
	u.backend.busy--
	p.forgetUnanswered(u)
	p.open--
	p.grant()
}

// forget notes that a connection that was lost has been closed.
func (p *Pool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.following--
}

// countRetry notes that a request had to be sent again.
func (p *Pool) countRetry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Retries++
}

// sent notes that u carries a request now.
func (p *Pool) sent(u *upstream) {
	u.answered = false
	if u.reused || p.options.MaxConnections > 0 || p.options.Reuse == 0 {
		return
	}
	u.sent = time.Now()
	p.mu.Lock()
	u.unanswered = p.unanswered.PushBack(u)
	p.mu.Unlock()
}

// taken notes that a worker has the request on u.
func (p *Pool) taken(u *upstream) {
	if u.unanswered != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forgetUnanswered(u)
	}
}

// answered notes that the request on u has got its first byte, so that a worker must have it.
func (p *Pool) answered(u *upstream) {
	if u.answered {
		return
	}
	u.answered = true
	if u.unanswered != nil {
		p.mu.Lock()
		p.forgetUnanswered(u)
		p.mu.Unlock()
	}
}

// forgetUnanswered is called with the lock held.
func (p *Pool) forgetUnanswered(u *upstream) {
	if u.unanswered != nil {
		p.unanswered.Remove(u.unanswered)
		u.unanswered = nil
	}
}

// mayQueueBehind reports whether a request may stand in PHP-FPM's backlog for want of a worker, while a pooled
// connection would pin one. MaxConnections, where it is set, is trusted to keep that from happening.
func (p *Pool) mayQueueBehind(now time.Time) bool {
	if p.options.MaxConnections > 0 {
		return false
	}
	oldest := p.unanswered.Front()
	return oldest != nil && now.Sub(oldest.Value.(*upstream).sent) > backlogSuspicion
}

// sweep closes the connections that have idled for long enough, and comes again while there are any.
func (p *Pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	left := 0
	for _, b := range p.backends {
		expired := 0
		for _, u := range b.idle {
			if now.Sub(u.idle) < p.options.Idle && now.Sub(u.dialled) < p.options.Reuse && !p.closed {
				break
			}
			u.close()
			p.open--
			expired++
		}
		b.idle = slices.Delete(b.idle, 0, expired)
		left += len(b.idle)
	}
	p.sweeper = nil
	if left > 0 {
		p.sweeper = time.AfterFunc(max(p.options.Idle/4, time.Millisecond), p.sweep)
	}
}

// Close closes the idle connections, and the busy ones as soon as their request is done. A request that is
// still on its way gets its connection all the same; it is not pooled afterwards.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.closeOneIdle() {
	}
}

// Stats returns what the pool has done so far.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Open, s.Queued = p.open, p.queue.Len()
	s.Running = p.following
	for _, b := range p.backends {
		s.Idle += len(b.idle)
		s.Running += b.busy
		s.Dialling += b.dialling
	}
	return s
}

// AddrStats are what a pool knows of one of its addresses.
type AddrStats struct {
	netaddr.Addr
	Busy, Idle int  // connections, now
	Down       bool // a connection could not be made a moment ago
	Failing    bool // its ping says so
	Saturated  bool // its ping waits for a worker, behind requests of the pool
}

// Addrs returns what the pool knows of its addresses, in their order.
func (p *Pool) Addrs() []AddrStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	all := make([]AddrStats, len(p.backends))
	for i, b := range p.backends {
		all[i] = AddrStats{
			Addr: b.addr, Busy: b.busy - b.dialling, Idle: len(b.idle),
			Down: b.downUntil.After(now), Failing: b.health == Failing, Saturated: b.health == Busy,
		}
	}
	return all
}

// IsBusy reports whether requests of the pool use a.
func (p *Pool) IsBusy(a netaddr.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.backends, func(b *backend) bool { return b.addr == a && b.busy > 0 })
}

// SetHealth records the result of a ping of a, and reports whether it has changed. The pool avoids an address that is
// Failing as long as there is another.
func (p *Pool) SetHealth(a netaddr.Addr, health Health) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.backends {
		if b.addr == a && b.health != health {
			b.health, changed = health, true
		}
	}
	return changed
}
