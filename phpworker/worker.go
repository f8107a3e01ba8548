package phpworker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a worker that Local has found.
type worker struct {
	ending     *keyedMutex // Local's: while one caller has stopped the process, another must not let it go on
	rounds     *rounds     // Local's
	process    *process
	module     module
	descriptor int    // of the connection, in the process
	inode      uint32 // of the connection

	last atomic.Pointer[glance] // nil: there is none

	mu     sync.RWMutex // held for reading while the process's descriptors are in use
	closed bool
}

func (w *worker) PID() int { return w.process.pid }

func (w *worker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	w.process.close()
	return nil
}

// with calls do unless the worker has been closed, and not while it is being closed. The number of a descriptor that
// was closed may be another file's a moment later.
func (w *worker) with(do func() error) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return fmt.Errorf("%w: it was closed here", ErrGone)
	}
	return do()
}

// Session reads the session, and looks afterwards whether it was this connection's all the time: a worker that has let
// go of a connection does not get it again. One that has its session open, as at the last look, has not let go.
func (w *worker) Session() (s Session, err error) {
	err = w.with(func() (err error) {
		s, err = w.session()
		return err
	})
	return s, err
}

func (w *worker) session() (Session, error) {
	s, g, err := w.look()
	if g != nil && g == w.last.Load() && s.Status == Active && g.looks.Add(1)%trustedLooks != 0 {
		return w.prove(s), nil
	}
	if holdErr := w.holds(); holdErr != nil {
		return Session{}, holdErr
	}
	if err != nil {
		return Session{}, err
	}
	w.last.Store(g)
	return w.prove(s), nil
}

// trustedLooks is at how many looks it is looked once whether the worker still has the connection, while its session is
// open and unchanged. PHP closes a session before the worker goes on to another connection.
const trustedLooks = 16

// look reads the session, or finds it as it was at the last look. The glance is nil if the next look needs all of it.
func (w *worker) look() (Session, *glance, error) {
	m := processMemory(w.process.pid)
	if last := w.last.Load(); last != nil && last.isUnchanged(m, w.module.addr) {
		return last.session, last, nil
	}
	vars := readVars(m, w.module.addr)
	s, err := readSession(m, w.module.addr, w.module.version)
	if err != nil {
		return s, nil, err
	}
	if s.ID != "" {
		s.Opened = w.module.vars.opened(vars, s.Status, w.module.version.isKnown())
	}
	return s, take(m, w.module.addr, s, vars), nil
}

// prove hides the status as long as nothing has shown that this PHP has the expected layout. An open session with an id
// shows it.
func (w *worker) prove(s Session) Session {
	if !w.module.proven.Load() {
		if s.Status != Active || s.ID == "" {
			s.Status = Unknown
			return s
		}
		w.module.proven.Store(true)
	}
	return s
}

// Activity reads what the process does.
func (w *worker) Activity() (a Activity, err error) {
	err = w.with(func() (err error) {
		a, err = w.activity()
		return err
	})
	return a, err
}

func (w *worker) activity() (Activity, error) {
	a := Activity{PID: w.process.pid, Version: string(w.module.version)}
	s, err := w.process.stat()
	if err != nil {
		return a, err
	}
	a.State, a.CPU = stateName(s.state), time.Duration(s.ticks)*clockTick
	if a.Program, err = w.process.program(); err != nil {
		return a, err
	}
	a.Syscall, a.Target = w.process.inSyscall()
	a.Session, err = w.session() // last: it looks whether all this was about this connection
	return a, err
}

// check reads the session of a worker that was just found, as a trial of the layout.
func (w *worker) check() error {
	_, err := w.session()
	return err
}

// holds returns nil if the process has the connection, else ErrGone.
func (w *worker) holds() error {
	ok, err := w.process.hasSocket(w.descriptor, w.inode)
	if err == nil && !ok {
		err = ErrGone
	}
	return err
}

func (w *worker) Interrupt(id string) error { return w.end(unix.SIGPROF, id) }

func (w *worker) Terminate(id string) error { return w.end(unix.SIGTERM, id) }

// end sends a signal to the worker of this very connection. What is stopped cannot go on to another request between the
// look and the signal. It looks before that too, so as not to stop what is not meant. The signal stays pending until
// SIGCONT, so nothing of PHP runs in between. PHP-FPM's master logs the stop, as "child N stopped for tracing".
func (w *worker) end(sig unix.Signal, id string) error {
	unlock := w.ending.lock(w.process.pid)
	defer unlock()
	return w.with(func() error {
		if err := w.isStill(id); err != nil {
			return err
		}
		if err := w.process.signal(unix.SIGSTOP); err != nil {
			return err
		}
		err := w.whileStopped(sig, id)
		if contErr := w.process.signal(unix.SIGCONT); err == nil {
			err = contErr
		}
		return err
	})
}

// whileStopped signals the process once it has stopped and if it still is what is meant.
func (w *worker) whileStopped(sig unix.Signal, id string) error {
	if err := w.process.awaitStop(); err != nil {
		return err
	}
	if err := w.isStill(id); err != nil {
		return err
	}
	if err := w.process.catches(sig); err != nil {
		return err
	}
	return w.process.signal(sig)
}

// isStill returns nil if the worker serves this connection, and with this session if id is not empty. Where session has
// trusted an earlier look, holds looks in any case: a signal must not meet another request.
func (w *worker) isStill(id string) error {
	if id == "" {
		return w.holds()
	}
	s, err := w.session()
	if err == nil {
		err = w.holds()
	}
	if err == nil && s.ID != id {
		err = ErrSession
	}
	return err
}

// clockTick is the unit of times in /proc: USER_HZ is 100 on all processors that this runs on.
const clockTick = 10 * time.Millisecond

// stateName returns a word for an operator. proc(5) lists the letters. Others, such as I for an idle kernel thread, are
// not expected of a worker.
func stateName(state byte) string {
	switch state {
	case 'R':
		return "running"
	case 'S':
		return "sleeping"
	case 'D':
		return "waiting for a disk"
	case 'T', 't':
		return "stopped"
	case 'Z', 'X':
		return "ended"
	}
	return "in state " + string(rune(state))
}

// keyedMutex is a mutex for each number.
type keyedMutex struct {
	mu   sync.Mutex
	held map[int]*keyedLock
}

type keyedLock struct {
	mu    sync.Mutex
	users int // that hold mu or wait for it
}

// lock locks the mutex of n and returns what unlocks it.
func (k *keyedMutex) lock(n int) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[int]*keyedLock)
	}
	one := k.held[n]
	if one == nil {
		one = &keyedLock{}
		k.held[n] = one
	}
	one.users++
	k.mu.Unlock()
	one.mu.Lock()
	return func() {
		one.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(k.held, n)
		}
	}
}
