package locktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Fake is a lease server in memory, for tests: its leases end after a TTL, it forgets them on demand, and gates
// can be cut off from it. Gates that wait take turns. It is made by NewFake.
type Fake struct {
	ttl time.Duration

	mu     sync.Mutex
	leases map[sessionlock.Key]*fakeLease
}

// fakeLease is the server's state of a key that a gate has or waits for.
type fakeLease struct {
	holder sessionlock.Token // the zero Token: the turn is kept for the first in line
	until  time.Time         // when the lease or the turn ends
	line   []place
}

// place is a waiting gate. The server forgets one that has not tried for a while.
type place struct {
	manager [8]byte
	asked   time.Time
}

// patience is how long a waiting gate is remembered after its last attempt. A manager tries every 50 ms.
const patience = 200 * time.Millisecond

// NewFake makes a server whose leases live for ttl; with zero, for ever.
func NewFake(ttl time.Duration) *Fake {
	return &Fake{ttl: ttl, leases: make(map[sessionlock.Key]*fakeLease)}
}

// Gate returns the store of one more gate.
func (f *Fake) Gate() *Gate { return &Gate{server: f} }

// Drop forgets the lease of key, as an eviction does.
func (f *Fake) Drop(key sessionlock.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.leases, key)
}

// Holder is the token that the lease of key was acquired with, and whether there is one.
func (f *Fake) Holder(key sessionlock.Key) (sessionlock.Token, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.live(key)
	if l == nil || l.holder == (sessionlock.Token{}) {
		return sessionlock.Token{}, false
	}
	return l.holder, true
}

// live finds what is not over yet of key. It is called with the mutex held, as all that follow.
func (f *Fake) live(key sessionlock.Key) *fakeLease {
	l := f.leases[key]
	if l == nil || (!l.until.IsZero() && !time.Now().Before(l.until)) {
		delete(f.leases, key)
		return nil
	}
	l.line = slices.DeleteFunc(l.line, func(p place) bool { return time.Since(p.asked) > patience })
	return l
}

func (f *Fake) end() time.Time {
	if f.ttl == 0 {
		return time.Time{}
	}
	return time.Now().Add(f.ttl)
}

func (f *Fake) acquire(key sessionlock.Key, token sessionlock.Token) error {
	l := f.live(key)
	if l == nil {
		f.leases[key] = &fakeLease{holder: token, until: f.end()}
		return nil
	}
	kept := l.holder == (sessionlock.Token{})
	if kept && (len(l.line) == 0 || l.line[0].manager == token.Manager()) {
		l.leave(token)
		l.holder, l.until = token, f.end()
		return nil
	}
	l.wait(token)
	return sessionlock.ErrHeld
}

func (f *Fake) renew(key sessionlock.Key, token sessionlock.Token) error {
	l := f.live(key)
	if l == nil || l.holder != token {
		return sessionlock.ErrLost
	}
	l.until = f.end()
	return nil
}

func (f *Fake) release(key sessionlock.Key, token sessionlock.Token) {
	l := f.live(key)
	switch {
	case l == nil || l.holder != token:
	case len(l.line) == 0:
		delete(f.leases, key)
	default:
		l.holder, l.until = sessionlock.Token{}, time.Now().Add(patience)
	}
}

func (l *fakeLease) wait(token sessionlock.Token) {
	for i := range l.line {
		if l.line[i].manager == token.Manager() {
			l.line[i].asked = time.Now()
			return
		}
	}
	l.line = append(l.line, place{token.Manager(), time.Now()})
}

func (l *fakeLease) leave(token sessionlock.Token) {
	l.line = slices.DeleteFunc(l.line, func(p place) bool { return p.manager == token.Manager() })
}

// Gate is what one gate sees of a Fake: a sessionlock.Store for one Manager.
type Gate struct {
	server *Fake

	// Guarded by the server's mutex.
	err    error
	delay  time.Duration
	counts Counts
}

// Counts are the calls that a Gate has got so far.
type Counts struct{ Acquire, Adopt, Renew, ShouldYield, Release, Withdraw int }

// Counts returns how often the gate was called.
func (g *Gate) Counts() Counts {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	return g.counts
}

// Fail cuts the gate off: from now on each question ends with err, and what it releases the server does not
// hear. A nil err mends it.
func (g *Gate) Fail(err error) {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.err = err
}

// Slow makes each request take d: half of it before the server acts, half before the gate gets the answer.
func (g *Gate) Slow(d time.Duration) {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.delay = d
}

// ask makes one round trip.
func (g *Gate) ask(ctx context.Context, count *int, question func() error) error {
	g.server.mu.Lock()
	*count++
	way := g.delay / 2
	g.server.mu.Unlock()
	time.Sleep(way)
	g.server.mu.Lock()
	err := g.err
	if err == nil {
		err = question()
	}
	g.server.mu.Unlock()
	time.Sleep(way)
	if err == nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", sessionlock.ErrStore, ctx.Err())
	}
	return err
}

// Acquire asks the server for a lease.
func (g *Gate) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	question := func() error { return g.server.acquire(key, token) }
	if err := g.ask(context.WithoutCancel(ctx), &g.counts.Acquire, question); err != nil {
		return nil, err
	}
	return &gateLease{gate: g, key: key, token: token}, nil
}

// Adopt returns a lease that the server grants when it is renewed, if it can.
func (g *Gate) Adopt(key sessionlock.Key, token sessionlock.Token) sessionlock.Lease {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.counts.Adopt++
	if l := g.server.live(key); l != nil && g.err == nil {
		l.leave(token)
	}
	return &gateLease{gate: g, key: key, token: token, adopted: true}
}

// Withdraw tells the server that the gate no longer waits.
func (g *Gate) Withdraw(key sessionlock.Key, token sessionlock.Token) {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.counts.Withdraw++
	if l := g.server.live(key); l != nil && g.err == nil {
		l.leave(token)
		if len(l.line) == 0 && l.holder == (sessionlock.Token{}) {
			delete(g.server.leases, key)
		}
	}
}

// TTL is how long a lease lives.
func (g *Gate) TTL() time.Duration { return g.server.ttl }

type gateLease struct {
	gate    *Gate
	key     sessionlock.Key
	token   sessionlock.Token
	adopted bool // the server has not granted it so far, or could not be reached for its renewal

	released bool
}

func (l *gateLease) Renew(ctx context.Context) error {
	err := l.gate.ask(ctx, &l.gate.counts.Renew, func() error {
		server := l.gate.server
		if l.adopted && !l.released && server.live(l.key) == nil {
			server.leases[l.key] = &fakeLease{holder: l.token, until: server.end()}
		}
		return server.renew(l.key, l.token)
	})
	l.gate.server.mu.Lock()
	defer l.gate.server.mu.Unlock()
	l.adopted = err != nil && !errors.Is(err, sessionlock.ErrLost)
	return err
}

func (l *gateLease) ShouldYield() bool {
	g := l.gate
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.counts.ShouldYield++
	live := g.server.live(l.key)
	return g.err == nil && live != nil && live.holder == l.token && len(live.line) > 0
}

func (l *gateLease) Release() {
	g := l.gate
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.counts.Release++
	l.released = true
	if g.err == nil {
		g.server.release(l.key, l.token)
	}
}
