package gate

import (
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
// looks at a worker while a request waits for its session, at most: one goroutine for all gates that share it. It is
// made by NewWorkers.
type Workers struct {
	finder phpworker.Finder
	log    hclog.Logger
	places chan struct{} // of searches at once
	wake   chan struct{} // a script is due
	end    chan struct{} // closed by Close
	ended  chan struct{}
	since  time.Time // when it was made
	rate   int       // of looks a second, at most

	mu      sync.Mutex
	looked  map[*phpScript]struct{} // that are looked at
	samples int                     // of them, those that no request waits for
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
	// A script is looked at after a part of the time since it was begun to be looked at, within these bounds.
	minLookPause = 2 * time.Millisecond
	maxLookPause = 20 * time.Millisecond
	lookPart     = 128
	// maxLookRate bounds the looks a second of all scripts together, maxHelpedRate those by a helper, which cost more.
	maxLookRate   = 2000
	maxHelpedRate = 1000
	// closedPause is the pause of a script whose sessions have been closed, as it may open them again, and of a sample.
	closedPause = 30 * time.Millisecond
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
	// maxWorkerSamples bounds the scripts that are looked at although no request waits, until their PHP is understood.
	maxWorkerSamples = 4
)

// NewWorkers returns a Workers that finds workers by finder.
func NewWorkers(finder phpworker.Finder, log hclog.Logger) *Workers {
	w := &Workers{
		finder: finder,
		log:    log,
		places: make(chan struct{}, maxSearches),
		wake:   make(chan struct{}, 1),
		end:    make(chan struct{}),
		ended:  make(chan struct{}),
		since:  time.Now(),
		rate:   maxLookRate,
		looked: make(map[*phpScript]struct{}),
		pools:  make(map[netaddr.Addr]*workerPool),
		used:   usedSessions{seed: maphash.MakeSeed()},
	}
	if _, helped := finder.(*phpworker.Helper); helped {
		w.rate = maxHelpedRate
	}
	go w.run()
	return w
}

// Close ends the looking. It is to be called once, when no gate uses w any longer.
func (w *Workers) Close() {
	close(w.end)
	<-w.ended
}

// run looks at the scripts that are due, round by round, until Close.
func (w *Workers) run() {
	defer close(w.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var earliest time.Time // when the next round may begin
	for {
		select {
		case <-timer.C:
		case <-w.wake:
			time.Sleep(time.Until(earliest))
		case <-w.end:
			return
		}
		due, pause := w.due()
		for _, s := range due {
			s.look()
		}
		busy := time.Duration(len(due)) * time.Second / time.Duration(w.rate)
		earliest = time.Now().Add(busy)
		timer.Reset(max(pause, busy))
	}
}

// due returns the scripts whose time has come, and how long the next one has.
func (w *Workers) due() (due []*phpScript, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	pause = time.Hour
	for s := range w.looked {
		if !s.wanted && w.isSettled(s) {
			w.samples--
			delete(w.looked, s)
			continue
		}
		if s.due.Sub(now) <= minLookPause/4 {
			due = append(due, s)
			s.due = w.after(now, s.pause(now))
		}
		pause = min(pause, s.due.Sub(now))
	}
	return due, pause
}

// after is the end of a pause that begins now, a little earlier where that lets several scripts be looked at in one
// round: rounds, in which the process wakes up, cost more than looks. Pauses of about the same length end at the same
// moments.
func (w *Workers) after(now time.Time, pause time.Duration) time.Time {
	tick := minLookPause / 4
	for 2*tick <= pause/2 {
		tick *= 2
	}
	return w.since.Add((now.Sub(w.since) + pause).Truncate(tick))
}

// pause is how long a script is left alone after a look. It is called with the mutex of w held.
func (s *phpScript) pause(now time.Time) time.Duration {
	if s.settled.Load() || !s.wanted {
		return closedPause
	}
	since := s.since
	if connected := s.exchange.Connected(); connected.After(since) {
		since = connected
	}
	return min(max(now.Sub(since)/lookPart, minLookPause), maxLookPause)
}

// lookAt has a script looked at from now on: for a request that waits, or else as a sample.
func (w *Workers) lookAt(s *phpScript, wanted bool) {
	w.mu.Lock()
	_, known := w.looked[s]
	switch {
	case known && (s.wanted || !wanted):
		w.mu.Unlock()
		return
	case known:
		w.samples--
	case !wanted && (w.samples >= maxWorkerSamples || w.isSettled(s)):
		w.mu.Unlock()
		return
	}
	if !wanted {
		w.samples++
	}
	w.looked[s] = struct{}{}
	s.wanted = wanted
	s.since = time.Now()
	s.due = s.since
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it has been woken already
	}
}

// isSettled reports whether no sample is needed: the workers can be looked at, or cannot. It is called with the mutex
// held.
func (w *Workers) isSettled(s *phpScript) bool {
	at, ok := s.exchange.Serving()
	if !ok {
		return false
	}
	p := w.pools[at.Addr()]
	return p != nil && (p.known || time.Now().Before(p.again))
}

// leave ends the looking at a script.
func (w *Workers) leave(s *phpScript) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.looked[s]; known && !s.wanted {
		w.samples--
	}
	delete(w.looked, s)
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

// Failing returns why the workers at an address cannot be looked at; nil if they can, or if that is not known.
func (w *Workers) Failing(a netaddr.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pools[a]; p != nil {
		return p.failed
	}
	return nil
}
