package gate

import (
	"slices"
	"sync"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// afterResponse is the time between the end of a response and the end of its script, as after
// fastcgi_finish_request(). PHP writes the session at the end of the script, unless the script does so before. Where
// PHP does not lock sessions itself, the locks of the request last until then.
type afterResponse struct {
	request *request
	script  []byte
	ended   sync.Once
}

// mayFollow reports whether the request's locks have to last until its script has really ended. Where PHP locks the
// session itself, a lock that ends with the response costs nothing but a worker that waits; and where the session is
// watched, the watch knows when it is closed.
func (r *request) mayFollow() bool {
	return r.policy.Mode == Exclusive && (!r.to.PHPLocks || r.to.Watcher != nil)
}

// mayBeElsewhere reports whether PHP may keep a session of the request elsewhere than in the place that is watched, with
// a handler that does not lock: no watch knows then when it is closed.
func (r *request) mayBeElsewhere() bool {
	if r.to.Watcher == nil {
		return true
	}
	return r.watch.seesNothing() || slices.ContainsFunc(r.more, func(f followed) bool { return f.watch.seesNothing() })
}

// outlives is called when the response has ended and the script may go on. It reports whether there are locks that
// last until the script has ended.
func (r *request) outlives() bool {
	holds := r.hold != nil && r.hold.on.Load()
	if r.released || !holds && len(r.more) == 0 || !r.mayBeElsewhere() {
		return false
	}
	d := r.Describe()
	after := &afterResponse{request: r, script: []byte(d.Script)}
	r.to.users.Add(1)
	r.gate.outliving.add(after)
	for _, l := range r.locks() {
		l.HoldFor(described(d))
	}
	r.after.Store(after)
	if r.lock != nil && r.lock.Err() != nil {
		after.end() // it ended meanwhile, and found nothing to end
	}
	return true
}

// locks are the request's lock and those of session ids that the response has set.
func (r *request) locks() []*sessionlock.Lock {
	var all []*sessionlock.Lock
	if r.lock != nil {
		all = append(all, r.lock)
	}
	for _, f := range r.more {
		all = append(all, f.lock)
	}
	return all
}

// followScript waits in the background for the end of a script that goes on after its response. A gate that shuts
// down waits for it as for a request.
func (r *request) followScript() {
	if r.exch.Follows() {
		r.gate.serving.Go(r.exch.AwaitScript)
	}
}

// end releases the locks, once: the script has ended, or its lock has, or the gate ends.
func (a *afterResponse) end() {
	a.ended.Do(func() {
		r := a.request
		for _, l := range r.locks() {
			l.Release()
		}
		if r.lock != nil {
			r.endHold(holdEnd(r.lock.Err()), a.script)
		}
		r.exch.Unfollow()
		r.gate.outliving.remove(a)
		r.to.leave()
	})
}
