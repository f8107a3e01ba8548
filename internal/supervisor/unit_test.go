package supervisor

import (
	"errors"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// folder is where the processes of a unit meet, in memory.
type folder struct {
	mu       sync.Mutex
	listener *pipes // of the process that offers its locks; nil: there is none
	pauses   map[string]time.Time
	broken   map[string]error // what a method of a unit by that name returns
}

func newFolder() *folder { return &folder{broken: make(map[string]error)} }

func (f *folder) failing(method string, err error) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[method] = err
	return f
}

func (f *folder) failure(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken[method]
}

// paused returns the names and times that are remembered.
func (f *folder) paused() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.pauses)
}

// fakeUnit is a unit to one process.
type fakeUnit struct {
	folder    *folder
	restarted bool         // systemd is going to start the unit again
	asked     atomic.Int32 // about that
	released  atomic.Bool  // the main process has ended
}

func (u *fakeUnit) DialPredecessor() (net.Conn, error) {
	if err := u.folder.failure("DialPredecessor"); err != nil {
		return nil, err
	}
	u.folder.mu.Lock()
	l := u.folder.listener
	u.folder.mu.Unlock()
	if l == nil {
		return nil, nil
	}
	return l.dial()
}

func (u *fakeUnit) ListenForSuccessor() (net.Listener, error) {
	if err := u.folder.failure("ListenForSuccessor"); err != nil {
		return nil, err
	}
	u.folder.mu.Lock()
	defer u.folder.mu.Unlock()
	u.folder.listener = newPipes()
	return u.folder.listener, nil
}

func (u *fakeUnit) Restarts() (bool, error) {
	u.asked.Add(1)
	return u.restarted, u.folder.failure("Restarts")
}

func (u *fakeUnit) Release() error {
	u.released.Store(true)
	return u.folder.failure("Release")
}

func (u *fakeUnit) LoadPauses() (map[string]time.Time, error) {
	if err := u.folder.failure("LoadPauses"); err != nil {
		return nil, err
	}
	return u.folder.paused(), nil
}

func (u *fakeUnit) SavePauses(until map[string]time.Time) error {
	if err := u.folder.failure("SavePauses"); err != nil {
		return err
	}
	u.folder.mu.Lock()
	defer u.folder.mu.Unlock()
	u.folder.pauses = maps.Clone(until)
	return nil
}

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	net.Listener // nil
	conns        chan net.Conn
	closed       chan struct{}
	once         sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) dial() (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, nil // the process has ended
	case <-time.After(time.Minute):
		return nil, errors.New("the process does not answer")
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}
