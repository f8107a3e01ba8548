package phpworker

import (
	"context"
	"time"
)

// Await looks at the session until it is not as seen.
func (w *worker) Await(ctx context.Context, seen Session, pause time.Duration) error {
	var failed error
	l := signedLook{sign: w.process.cpuTime, changed: func() (changed bool) {
		var s Session
		s, failed = w.Session()
		return failed != nil || s != seen
	}}
	if err := w.rounds.await(ctx, pause, l.take); err != nil {
		return err // a look may go on, and set the other one
	}
	return failed
}

// signedLook looks at a process only if it may have changed anything since the last look. A process that has not run
// has not, and the CPU time that it has used shows that for a fraction of what reading its memory costs.
type signedLook struct {
	sign    func() (cpuTime int64, ok bool)
	changed func() bool // reads the process's memory

	last  int64 // the sign, before the memory was read
	until time.Time
}

// signTrusted is how long looks go by the sign only. The kernel counts the time of a process that runs at each of its
// ticks, so a change may be seen a few milliseconds late; and on a virtual machine that has to wait for its CPU it may
// count a short run as nothing. It is a multiple of all usual pauses, so all processes are read in the same round.
const signTrusted = 1024 * time.Millisecond

func (l *signedLook) take(now time.Time) (cost int, last bool) {
	sign, ok := l.sign()
	if ok && sign == l.last && now.Before(l.until) {
		return signCost, false
	}
	if l.changed() {
		return readCost, true
	}
	l.until = time.Time{}
	if ok {
		l.last, l.until = sign, dueAfter(now, signTrusted)
	}
	return readCost, false
}
