package gate

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// Workers sees what PHP does with its sessions in the workers that serve the requests, for every session handler. It
// looks at a worker while a request waits for its session, and at a few others until it understands their PHP. It is
// made by NewWorkers.
type Workers struct {
	finder  phpworker.Finder
	log     hclog.Logger
	places  chan struct{} // of searches at once
	looking sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	looked  map[*phpScript]struct{} // that are looked at, each by a goroutine
	samples int                     // of them, those that no request waits for
	spare   int                     // how many more of these may begin
	sampled time.Time               // when spare was counted last
	pools   map[netaddr.Addr]*workerPool
	used    usedSessions

	asking  sync.Mutex // guards the fields below
	unready error      // why no worker at all could be found when finder was asked last
	asked   time.Time
}

// workerPool is what is known of the workers at one address.
type workerPool struct {
	seen   bool      // the session of one has been read
	known  bool      // and it can be told whether a session was opened before
	failed error     // why they cannot be looked at, or not now; nil: nothing is known to be in the way
	again  time.Time // when they are looked at again after that
	// Workers that were not understood since one was the last time. One that is known counts once in a row.
	strange    int
	strangePID int
}

// errNoWorkers is returned where workers are not looked at.
var errNoWorkers = errors.New(`the gate does not look at PHP-FPM's workers; see session { watch = "auto" }`)

const (
	// closedPause is the pause of a script whose sessions have been closed, as it may open them again, and of a sample.
	closedPause = 30 * time.Millisecond
	// awaitAgain is how long a change is awaited until it is looked whether the script still has the same worker.
	awaitAgain = 5 * time.Second
	// maxSearches bounds the searches for workers at once.
	maxSearches = 4
	// searchPause is after what time a worker is searched again that has not accepted its connection yet.
	searchPause = 5 * time.Millisecond
	// failedPause is how long workers that cannot be looked at are left alone, helperPause where the helper failed.
	failedPause = time.Minute
	helperPause = 5 * time.Second
	// maxStrange is how many workers in a row must not be understood before the others at an address are given up, once
	// one was understood: a single one may be damaged.
	maxStrange = 3
	// maxWorkerSamples bounds the scripts that are looked at although no request waits, until their PHP is understood:
	// so many at once, and another one after each samplePause.
	maxWorkerSamples = 4
	samplePause      = 100 * time.Millisecond
)

// NewWorkers returns a Workers that finds workers by finder.
func NewWorkers(finder phpworker.Finder, log hclog.Logger) *Workers {
	w := &Workers{
		finder: finder,
		log:    log,
		places: make(chan struct{}, maxSearches),
		looked: make(map[*phpScript]struct{}),
		pools:  make(map[netaddr.Addr]*workerPool),
		used:   usedSessions{seed: maphash.MakeSeed()},
	}
	w.looking.Go(w.reportLack)
	return w
}

// reportLack logs which rights are missing, before a script is to be looked at. That no helper listens is not an error:
// it may not be wanted.
func (w *Workers) reportLack() {
	if err := w.ready(); errors.Is(err, phpworker.ErrRights) {
		w.log.Warn("PHP-FPM's workers cannot be looked at, or their scripts not be ended; docs/WORKERS.md says what it takes",
			"error", err)
	}
}

// Close ends the looking. It is to be called once, when no gate uses w any longer.
func (w *Workers) Close() {
	w.mu.Lock()
	w.closed = true
	for s := range w.looked {
		w.dropLocked(s)
	}
	w.mu.Unlock()
	w.looking.Wait()
}

// lookAt has a script looked at from now on, for a request that waits.
func (w *Workers) lookAt(s *phpScript) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.looked[s]
	switch {
	case w.closed, known && s.wanted:
		return
	case known:
		w.samples--
	}
	w.begin(s, true)
}

// sample has a script looked at although no request waits, where the workers at one of the addresses that it may run at
// are not understood yet. It is called with each request.
func (w *Workers) sample(s *phpScript, addrs []netaddr.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.looked[s]
	if w.closed || known || w.samples >= maxWorkerSamples {
		return
	}
	now := time.Now()
	needed := slices.ContainsFunc(addrs, func(a netaddr.Addr) bool { return !w.isSettled(a, now) })
	if !needed || !w.maySample(now) {
		return
	}
	w.samples++
	w.begin(s, false)
}

// begin begins to look at a script, or looks at it now if it has begun. It is called with the mutex held.
func (w *Workers) begin(s *phpScript, wanted bool) {
	s.wanted, s.since = wanted, time.Now()
	if _, known := w.looked[s]; known {
		s.hurry()
		return
	}
	w.looked[s] = struct{}{}
	s.hurry = func() {}
	w.looking.Go(func() { w.follow(s) })
}

// follow looks at a script as long as it is to be looked at.
func (w *Workers) follow(s *phpScript) {
	for {
		ctx, connected := w.next(s)
		if ctx == nil {
			return
		}
		if connected {
			s.look()
		}
		s.await(ctx, w.pause(s))
	}
}

// next returns for how long a change of a script may be awaited; nil: it is not to be looked at any longer. Until it is
// connected, the script has no worker, and whether a sample of it is needed is not known.
func (w *Workers) next(s *phpScript) (ctx context.Context, connected bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, looked := w.looked[s]; !looked {
		return nil, false
	}
	s.hurry() // it frees what the last one takes
	at, connected := s.exchange.Serving()
	if !s.wanted && connected && w.isSettled(at.Addr(), time.Now()) {
		w.dropLocked(s)
		return nil, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), awaitAgain)
	s.hurry = cancel
	return ctx, connected
}

// pause is how long a script is left alone after a look.
func (w *Workers) pause(s *phpScript) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.settled.Load() || !s.wanted {
		return closedPause
	}
	since := s.since
	if connected := s.exchange.Connected(); connected.After(since) {
		since = connected
	}
	return phpworker.LookPause(time.Since(since))
}

// hurry has a script that is looked at looked at now.
func (w *Workers) hurry(s *phpScript) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, looked := w.looked[s]; looked {
		s.hurry()
	}
}

// maySample reports whether another sample may be taken: a sample costs as much as a request, and of a script that is
// over in a moment it shows nothing. It is called with the mutex held.
func (w *Workers) maySample(now time.Time) bool {
	if pauses := now.Sub(w.sampled) / samplePause; pauses > 0 {
		w.spare = min(w.spare+int(min(pauses, maxWorkerSamples)), maxWorkerSamples)
		w.sampled = now
	}
	if w.spare == 0 {
		return false
	}
	w.spare--
	return true
}

// isSettled reports whether no sample of the workers at an address is needed: they can be looked at, or cannot. It is
// called with the mutex held.
func (w *Workers) isSettled(a netaddr.Addr, now time.Time) bool {
	p := w.pools[a]
	return p != nil && (p.known || now.Before(p.again))
}

// hurrySamples has samples left alone that are needed no longer. It is called with the mutex held.
func (w *Workers) hurrySamples() {
	for s := range w.looked {
		if !s.wanted {
			s.hurry()
		}
	}
}

// leave ends the looking at a script.
func (w *Workers) leave(s *phpScript) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropLocked(s)
}

func (w *Workers) dropLocked(s *phpScript) {
	if _, looked := w.looked[s]; !looked {
		return
	}
	if !s.wanted {
		w.samples--
	}
	delete(w.looked, s)
	s.hurry()
}

// usedSessions are hashes of sessions that PHP was seen to have open lately, with a handler that locks: only of these
// it is believed that a script has not opened its session. An application that keeps sessions in its own way never
// opens one. What is forgotten costs a session the turns that its scripts could have given away.
type usedSessions struct {
	seed       maphash.Seed
	young, old map[uint64]struct{}
	turned     time.Time // when young was empty
}

const (
	maxUsed  = 1 << 15 // of each map
	usedTime = 10 * time.Minute
)

// noteUse notes that PHP was seen to have the session of id open, with a handler that locks.
func (w *Workers) noteUse(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := &w.used
	now := time.Now()
	if u.young == nil || len(u.young) >= maxUsed || now.Sub(u.turned) > usedTime {
		u.old, u.young, u.turned = u.young, make(map[uint64]struct{}), now
	}
	u.young[maphash.String(u.seed, id)] = struct{}{}
}

// forgetUse notes that PHP was seen to have the session of id open with a handler that does not lock.
func (w *Workers) forgetUse(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hash := maphash.String(w.used.seed, id)
	delete(w.used.young, hash)
	delete(w.used.old, hash)
}

// uses reports whether PHP was seen to have the session of id open lately, with a handler that locks.
func (w *Workers) uses(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	hash := maphash.String(w.used.seed, id)
	_, young := w.used.young[hash]
	_, old := w.used.old[hash]
	return young || old
}

// cover reports whether the workers at all of the addresses are known to show their sessions: nothing else needs to be
// watched.
func (w *Workers) cover(addrs []netaddr.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		if p := w.pools[a]; p == nil || !p.seen || p.failed != nil {
			return false
		}
	}
	return true
}

// mayLook reports whether the workers at an address may be looked at now.
func (w *Workers) mayLook(a netaddr.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pools[a]
	return p == nil || p.failed == nil || !time.Now().Before(p.again)
}

// mayLookAny reports whether the workers at any of the addresses may be looked at now.
func (w *Workers) mayLookAny(addrs []netaddr.Addr) bool { return slices.ContainsFunc(addrs, w.mayLook) }

func (w *Workers) pool(a netaddr.Addr) *workerPool {
	if w.pools[a] == nil {
		w.pools[a] = new(workerPool)
	}
	return w.pools[a]
}

// saw notes that the session of a worker was read, and whether all of it is understood. It logs the first once.
func (w *Workers) saw(a netaddr.Addr, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pool(a)
	if !p.seen || p.failed != nil {
		w.log.Info("PHP sessions are watched in the workers", "upstream", a.String())
	}
	if known && !p.known {
		w.hurrySamples()
	}
	*p = workerPool{seen: true, known: p.known || known}
}

// fails notes why a worker cannot be looked at, and logs that once. The worker's pid is 0 if it is not known.
func (w *Workers) fails(a netaddr.Addr, err error, pid int) {
	pause := failedPause
	if errors.Is(err, phpworker.ErrHelper) {
		pause = helperPause
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pool(a)
	if p.seen && errors.Is(err, phpworker.ErrLayout) && !p.isStrange(pid) {
		return
	}
	if p.failed == nil {
		w.log.Warn("cannot watch PHP sessions in the workers; what handler and save_path say is watched, if anything",
			"upstream", a.String(), "error", err)
	}
	p.failed, p.again = err, time.Now().Add(pause)
	w.hurrySamples()
}

// isStrange counts a worker that was not understood, and reports whether there were enough of them in a row.
func (p *workerPool) isStrange(pid int) bool {
	if pid == 0 || pid != p.strangePID {
		p.strange++
	}
	p.strangePID = pid
	return p.strange >= maxStrange
}

// activityAt looks at the worker that serves a connection.
func (w *Workers) activityAt(conn syscall.RawConn) (phpworker.Activity, error) {
	worker, err := w.finder.Find(conn)
	if err != nil {
		return phpworker.Activity{}, err
	}
	defer worker.Close()
	return worker.Activity()
}

// ready returns why no worker at all can be found; nil: nothing is known to be in the way. It asks every few seconds.
func (w *Workers) ready() error {
	w.asking.Lock()
	defer w.asking.Unlock()
	if now := time.Now(); now.Sub(w.asked) > helperPause {
		w.unready, w.asked = w.finder.Ready(), now
	}
	return w.unready
}

// unseen returns why the workers at an address cannot be looked at, even if none was to be so far. It is nil if they
// can, if that is not known, and if it is as it must be, because they are another host's.
func (w *Workers) unseen(a netaddr.Addr) error {
	err := w.Failing(a)
	switch {
	case errors.Is(err, phpworker.ErrOtherHost):
		return nil
	case err != nil || a.Network != "unix": // which may be another host's
		return err
	}
	if err := w.ready(); errors.Is(err, phpworker.ErrRights) && !errors.Is(err, phpworker.ErrNoKill) {
		return err
	}
	return nil
}

// Failing returns why the workers at an address cannot be looked at; nil if they can, or if that is not known.
func (w *Workers) Failing(a netaddr.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pools[a]; p != nil {
		return p.failed
	}
	return nil
}
