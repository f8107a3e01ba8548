package gate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// phpScript is the script of one request, as the worker shows it that runs it. It lasts as long as it has users.
type phpScript struct {
	workers  *Workers
	exchange *fcgi.Exchange
	// uploads: PHP may open and close the session itself while it reads the body (session.upload_progress), before the
	// script begins. When it has begun cannot be seen.
	uploads bool
	settled atomic.Bool // all sessions that are looked at are closed
	looking sync.Mutex  // one look at a time, so that they are taken in their order

	// Guarded by the mutex of workers.
	wanted bool // a request waits
	since  time.Time
	hurry  func() // ends the wait for the next look

	mu       sync.Mutex
	users    int
	sessions []*sessionView
	at       fcgi.Serving // the connection of worker
	worker   phpworker.Worker
	latest   *phpworker.Session // that was read of worker; nil: none was
	searches bool
	again    time.Time // when the worker is searched again
	failed   error     // why it will not be found
	insists  bool      // it is searched even where the workers were given up for a while
}

// use adds a user, and reports whether it could: a script that has lost its last one gets no other.
func (s *phpScript) use() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		return false
	}
	s.users++
	return true
}

// leave ends one use. With the last the worker is left alone.
func (s *phpScript) leave() {
	s.mu.Lock()
	s.users--
	last := s.users == 0
	var worker phpworker.Worker
	if last {
		worker, s.worker = s.worker, nil
	}
	s.mu.Unlock()
	if !last {
		return
	}
	s.workers.leave(s)
	if worker != nil {
		_ = worker.Close()
	}
}

// await returns when the session has changed since the last look, or it is to be looked at again anyway.
func (s *phpScript) await(ctx context.Context, pause time.Duration) {
	s.mu.Lock()
	worker, latest := s.worker, s.latest
	s.mu.Unlock()
	if worker != nil && latest != nil && worker.Await(ctx, *latest, pause) == nil {
		return
	}
	select { // there is no worker to be seen
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// look reads what PHP does with its session now, if the worker is there. Otherwise it has it searched.
func (s *phpScript) look() {
	s.looking.Lock()
	defer s.looking.Unlock()
	at, worker, _ := s.locate(false)
	if worker == nil {
		return
	}
	for _, v := range s.views() {
		v.wasClosed = v.closedOutside()
	}
	seen, err := worker.Session()
	if !at.IsNow() {
		return
	}
	if err != nil {
		s.lose(at, err)
		return
	}
	s.mu.Lock()
	if s.worker == worker {
		s.latest = &seen
	}
	s.mu.Unlock()
	if seen.Status == phpworker.Unknown {
		return
	}
	s.workers.saw(at.Addr(), seen.ID != "" && seen.Opened != phpworker.NotKnown)
	settled := true
	for _, v := range s.views() {
		settled = v.saw(&seen) && settled
	}
	s.settled.Store(settled)
}

// views returns the sessions that are looked at.
func (s *phpScript) views() []*sessionView {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sessions)
}

// find is locate for a script that is to be ended: what other workers were like does not count.
func (s *phpScript) find() (fcgi.Serving, phpworker.Worker, error) { return s.locate(true) }

// locate returns the worker, or nil: then it is being searched, or cannot be found, for the reason that is returned.
// After a call with insist it is searched even where the workers at its address were given up for a while.
func (s *phpScript) locate(insist bool) (fcgi.Serving, phpworker.Worker, error) {
	at, ok := s.exchange.Serving()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || s.users == 0 {
		return at, nil, nil
	}
	if s.worker != nil && s.at != at { // the request was sent again over another connection
		_ = s.worker.Close()
		s.worker, s.latest, s.failed = nil, nil, nil
	}
	if insist && !s.insists {
		s.insists, s.failed = true, nil
	}
	if s.worker == nil && s.failed == nil && !s.searches && !time.Now().Before(s.again) {
		s.searches = true
		go s.search(at, s.insists)
	}
	return at, s.worker, s.failed
}

// search searches the worker; with insists, even where the workers were given up for a while.
func (s *phpScript) search(at fcgi.Serving, insists bool) {
	s.workers.places <- struct{}{}
	defer func() { <-s.workers.places }()
	var worker phpworker.Worker
	var err error
	given := !insists && !s.workers.mayLook(at.Addr())
	if !given {
		worker, err = s.findAt(at)
	} else {
		err = s.workers.Failing(at.Addr())
	}
	isNow := at.IsNow()
	s.mu.Lock()
	s.searches = false
	s.again = time.Now().Add(searchPause)
	if worker != nil && (!isNow || s.users == 0) {
		s.mu.Unlock()
		_ = worker.Close()
		return
	}
	s.at, s.worker, s.latest = at, worker, nil
	lasting := isNow && err != nil && !isPassing(err) && insists == s.insists
	if lasting {
		s.failed = err
	}
	s.mu.Unlock()
	switch {
	case lasting:
		if !given {
			s.workers.fails(at.Addr(), err, 0)
		}
	case worker != nil:
		s.look()
		s.workers.hurry(s)
	}
}

func (s *phpScript) findAt(at fcgi.Serving) (phpworker.Worker, error) {
	raw, err := at.SyscallConn()
	if err != nil {
		return nil, phpworker.ErrGone
	}
	return s.workers.finder.Find(raw)
}

// isPassing reports whether an error says something of one script only.
func isPassing(err error) bool {
	return phpworker.Temporary(err) && !errors.Is(err, phpworker.ErrHelper)
}

// lose is called when the worker could not be read.
func (s *phpScript) lose(at fcgi.Serving, err error) {
	s.mu.Lock()
	worker := s.worker
	s.worker, s.latest, s.again = nil, nil, time.Now().Add(searchPause)
	s.mu.Unlock()
	pid := 0
	if worker != nil {
		pid = worker.PID()
		_ = worker.Close()
	}
	if !isPassing(err) {
		s.workers.fails(at.Addr(), err, pid)
	}
}

// sessionView is one session of a script, as its worker shows it.
type sessionView struct {
	script *phpScript
	own    string // the session's id
	isNew  bool   // which the response has set: PHP should have opened it
	locks  func(handler string) bool
	// closed and reopened are called once each, with PHP's handler: when PHP has closed the session, and when it has
	// opened it again after that. They must not block.
	closed, reopened func(handler string)
	// closedOutside reports whether the place of the sessions has shown that PHP has closed it: before the worker was
	// found, or before it could be told what it does.
	closedOutside func() bool
	wasClosed     bool // by that, before the look that is being taken; guarded by looking of script

	telling sync.Mutex // held while they are called, and before mu
	stopped bool       // guarded by telling

	mu        sync.Mutex
	state     sessionwatch.State
	isKnown   bool
	sawOwn    bool   // PHP had this very session open
	other     string // another one that it had open instead
	foreign   bool   // another id was there before this session was seen open
	destroyed bool   // PHP no longer has it
	again     bool   // it was opened again
}

// begin begins to look at the session. It takes over one use of the script.
func (v *sessionView) begin() {
	s := v.script
	s.mu.Lock()
	s.sessions = append(s.sessions, v)
	s.settled.Store(false)
	s.mu.Unlock()
	s.workers.hurry(s)
}

// stop ends the looking at the session. Nothing is called after that. A second call does nothing.
func (v *sessionView) stop() {
	v.telling.Lock()
	stopped := v.stopped
	v.stopped = true
	v.telling.Unlock()
	if stopped {
		return
	}
	s := v.script
	s.mu.Lock()
	s.sessions = slices.DeleteFunc(s.sessions, func(other *sessionView) bool { return other == v })
	s.mu.Unlock()
	s.leave()
}

// saw takes in what was seen, and reports whether the session is closed.
func (v *sessionView) saw(s *phpworker.Session) bool {
	v.telling.Lock()
	defer v.telling.Unlock()
	if v.stopped {
		return true
	}
	v.mu.Lock()
	before := v.state
	now := v.next(s)
	closed := before == sessionwatch.Closed || v.wasClosed && v.isOwn(s)
	again := closed && s.Status == phpworker.Active && !v.again
	v.state, v.isKnown, v.again = now, true, v.again || again
	v.mu.Unlock()
	if now == sessionwatch.Closed && before != now {
		v.closed(s.Handler)
	}
	if again {
		v.reopened(s.Handler)
	}
	return now == sessionwatch.Closed
}

// next is the state after what was seen. PHP sets the id before it opens a session, and keeps it when it has closed it,
// until the request ends or the session is destroyed. So an id alone shows nothing, and neither does another session
// that was opened and closed: a script can go on to this one. What is in doubt is Unknown: the lock lasts.
func (v *sessionView) next(s *phpworker.Session) sessionwatch.State {
	own := v.isOwn(s)
	switch {
	case v.script.uploads:
		return sessionwatch.Unknown
	case s.Status == phpworker.Active && own:
		v.noteUse(s.Handler)
		v.sawOwn = true
		if v.state == sessionwatch.Closed {
			return sessionwatch.Closed
		}
		return sessionwatch.Open
	case s.ID != "" && !own && !v.sawOwn:
		v.foreign = true
	}
	switch {
	case v.state == sessionwatch.Closed:
		return sessionwatch.Closed
	case s.Status == phpworker.Active:
		v.other = s.ID
		if v.sawOwn { // it has a new id
			return sessionwatch.Open
		}
	case v.sawOwn, own && s.Opened == phpworker.Before && !v.foreign:
		v.destroyed = !own
		return sessionwatch.Closed
	case s.ID == "" && v.locks(s.Handler) && v.script.workers.uses(v.own):
		return sessionwatch.Unopened
	}
	return sessionwatch.Unknown
}

// isOwn reports whether what was seen is this very session.
func (v *sessionView) isOwn(s *phpworker.Session) bool {
	return s.ID != "" && string(phpsession.LockName([]byte(s.ID))) == v.own
}

// noteUse notes with which handler PHP has the session open: only now is it known which one the script uses, as it may
// set another one than php.ini at any time before.
func (v *sessionView) noteUse(handler string) {
	switch {
	case !v.locks(handler):
		v.script.workers.forgetUse(v.own)
	case v.state != sessionwatch.Open:
		v.script.workers.noteUse(v.own)
	}
}

// seen returns the state that was seen last, and whether there was anything to be seen.
func (v *sessionView) seen() (s sessionwatch.State, ok bool) {
	if v == nil {
		return sessionwatch.Unknown, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state, v.isKnown
}

// want has the worker looked at from now on, until stop.
func (v *sessionView) want() {
	if v == nil {
		return
	}
	v.telling.Lock()
	defer v.telling.Unlock()
	if !v.stopped { // else nothing would end the looking: a hold that outlives its request may have ended meanwhile
		v.script.workers.lookAt(v.script)
	}
}

// isDestroyed reports whether PHP no longer had the session when it was closed.
func (v *sessionView) isDestroyed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.destroyed
}

// otherID returns the id of the session that PHP had open instead of this one; empty: none.
func (v *sessionView) otherID() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sawOwn {
		return ""
	}
	return v.other
}
