package phpworker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Local finds workers by itself, with the rights of this process. The zero value is ready.
type Local struct {
	// Programs are patterns of the programs that may be looked at, as in filepath.Match; DefaultPrograms if empty. One
	// with a slash is matched against the whole path. One without is matched against the file's name, and the file
	// must belong to root and be writable by no other user.
	Programs []string

	programs programs
	hint     atomic.Int32 // the descriptor that was a worker's connection last time

	mu      sync.Mutex
	modules map[processID]module
	masters []int     // of PHP-FPMs that were reached over TCP
	scanned time.Time // when they were looked for last

	ending keyedMutex // by the worker's id
	rounds rounds     // of all its workers
}

// DefaultPrograms are the programs that may be looked at if nothing else is said.
var DefaultPrograms = []string{"php-fpm*"}

// processID names a process for as long as the host runs.
type processID struct {
	pid     int
	started uint64
}

// ownerPauses are the pauses after which a TCP connection that no worker has is looked at again. A worker that is just
// accepting it has it in a moment. One that has just been killed has it no longer, and the kernel has yet to close it.
var ownerPauses = [...]time.Duration{
	10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond, 160 * time.Millisecond,
}

// maxModules bounds what is kept of processes that have ended.
const maxModules = 4096

// Find returns the worker that has accepted conn.
func (l *Local) Find(conn syscall.RawConn) (Worker, error) {
	end, err := endOf(conn)
	if err != nil {
		return nil, fmt.Errorf("find the worker: %w", err)
	}
	w, err := l.find(end)
	if errors.Is(err, errNoOwner) {
		w, err = l.findAgain(conn, end)
	}
	if err != nil {
		return nil, fmt.Errorf("find the worker: %w", err)
	}
	return w, nil
}

// findAgain is find after errNoOwner, for as long as a worker may be about to have the connection, or to lose it.
func (l *Local) findAgain(conn syscall.RawConn, end peerEnd) (*worker, error) {
	for _, pause := range ownerPauses {
		time.Sleep(pause)
		if now, err := endOf(conn); err != nil || now != end {
			return nil, errNoOwner
		}
		if w, err := l.find(end); !errors.Is(err, ErrGone) {
			return w, err
		}
	}
	return nil, fmt.Errorf("%w: another program has accepted the connection, such as a relay", ErrProgram)
}

// Ready looks whether this process has the rights.
func (l *Local) Ready() error { return Rights() }

// errNoOwner is returned when no worker of any PHP-FPM has a TCP connection, after a fresh look at all of them.
var errNoOwner = fmt.Errorf("%w: no worker has it", ErrGone)

func (l *Local) find(end peerEnd) (*worker, error) {
	p, n, err := l.search(end)
	if err != nil {
		return nil, err
	}
	w := &worker{ending: &l.ending, rounds: &l.rounds, process: p, descriptor: n, inode: end.inode}
	if w.module, err = l.module(p); err == nil {
		err = w.check()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return w, nil
}

// peerEnd is PHP-FPM's end of a connection.
type peerEnd struct {
	inode  uint32
	master int // the process that listens; 0: not known
}

// endOf finds PHP-FPM's end of a connection.
func endOf(conn syscall.RawConn) (end peerEnd, err error) {
	if conn.Control(func(fd uintptr) { end, err = endOfFD(int(fd)) }) != nil {
		return peerEnd{}, errClosedHere
	}
	return end, err
}

// errClosedHere is returned for a connection that this process has closed, as that of a stream whose browser has gone.
var errClosedHere = fmt.Errorf("%w: it was closed here", ErrGone)

func endOfFD(fd int) (end peerEnd, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return end, os.NewSyscallError("getsockopt", err)
	}
	if domain != unix.AF_UNIX {
		return tcpEnd(fd)
	}
	// The peer of a connection that was made is the process that called listen, see unix(7): PHP-FPM's master. Its id
	// is 0 where the own PID namespace does not have it.
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return end, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if cred.Pid <= 0 {
		return end, fmt.Errorf("%w: share it (shareProcessNamespace in a pod), or run the gate in PHP-FPM's container",
			ErrNamespace)
	}
	end.master = int(cred.Pid)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return end, os.NewSyscallError("fstat", err)
	}
	if end.inode, err = unixPeer(uint32(st.Ino)); err == nil && end.inode == 0 {
		err = noInode(fd)
	}
	return end, err
}

// noInode returns why the other end of a unix connection belongs to no process: it is still to be accepted, or was
// closed. In the second case poll reports POLLHUP.
func noInode(fd int) error {
	set := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(set, 0); err == nil && set[0].Revents&unix.POLLHUP != 0 {
		return ErrGone
	}
	return ErrWaiting
}

// tcpEnd looks for the other end of a TCP connection among this host's sockets.
func tcpEnd(fd int) (end peerEnd, err error) {
	here, err := unix.Getsockname(fd)
	if err != nil {
		return end, os.NewSyscallError("getsockname", err)
	}
	there, err := unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return end, ErrGone
	}
	if err != nil {
		return end, os.NewSyscallError("getpeername", err)
	}
	end.inode, err = tcpInode(addrPort(there), addrPort(here)) // as its owner sees it
	if errors.Is(err, ErrOtherHost) && tcpHasEnded(fd) {
		err = ErrGone
	}
	return end, err
}

// tcpHasEnded reports whether the other end of a TCP connection has closed or reset it. In the two FIN_WAIT states it
// is this end that has closed its side only, and a script may still respond.
func tcpHasEnded(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State != stateEstablished && info.State != stateFinWait1 && info.State != stateFinWait2
}

// search finds the process that has the socket, among the children of PHP-FPM's master, and the number of its
// descriptor. The caller closes the process.
func (l *Local) search(end peerEnd) (*process, int, error) {
	if end.master != 0 {
		return l.searchChildren(end.master, end.inode)
	}
	l.mu.Lock()
	masters, recent := slices.Clone(l.masters), time.Since(l.scanned) < scanPause
	l.mu.Unlock()
	// Masters rarely change. A worker that is not among theirs is worth a new look at all processes, but not at every
	// miss.
	if p, n, err := l.searchAll(masters, end.inode); err == nil || recent && len(masters) > 0 {
		return p, n, err
	}
	masters, err := l.findMasters()
	if err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	l.masters, l.scanned = masters, time.Now()
	l.mu.Unlock()
	p, n, err := l.searchAll(masters, end.inode)
	if errors.Is(err, ErrGone) {
		err = errNoOwner
	}
	return p, n, err
}

// scanPause is between two looks at all processes of the host, which take several milliseconds.
const scanPause = time.Second

// searchAll finds the worker that has the socket among those of several masters.
func (l *Local) searchAll(masters []int, inode uint32) (p *process, n int, err error) {
	err = fmt.Errorf("%w: no process of this PID namespace runs %s", ErrProgram, strings.Join(l.patterns(), " or "))
	for _, master := range masters {
		if p, n, err = l.searchChildren(master, inode); err == nil {
			return p, n, nil
		}
	}
	if len(masters) > 0 && errors.Is(err, ErrProgram) {
		err = ErrGone // a master that was known has ended
	}
	return nil, 0, err
}

// findMasters returns the processes that run PHP-FPM and are not the child of one that does. A process that may not be
// looked at could be one, so its error is returned if there is none.
func (l *Local) findMasters() (masters []int, err error) {
	parents := make(map[int]int)
	var denied error
	err = eachProcess(func(p *process) bool {
		ok, err := p.matches(l.patterns())
		if s, statErr := p.stat(); ok && statErr == nil {
			parents[p.pid] = s.parent
		}
		if errors.Is(err, ErrRights) {
			denied = err
		}
		return true
	})
	for pid, parent := range parents {
		if _, isChild := parents[parent]; !isChild {
			masters = append(masters, pid)
		}
	}
	if len(masters) == 0 && err == nil {
		err = denied
	}
	return masters, err
}

func (l *Local) patterns() []string {
	if len(l.Programs) == 0 {
		return DefaultPrograms
	}
	return l.Programs
}

// searchChildren finds the child of a master that has the socket. Most often that is the same descriptor as last time,
// so it is looked at first, in all of them.
func (l *Local) searchChildren(master int, inode uint32) (*process, int, error) {
	m, err := openProcess(master)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: process %d, which listened, has ended", ErrProgram, master)
	}
	defer m.close()
	if err := l.allow(m); err != nil {
		return nil, 0, err
	}
	pids, err := children(master)
	if err != nil {
		return nil, 0, err
	}
	hint := int(l.hint.Load())
	find := []func(*process) (int, error){
		func(p *process) (int, error) {
			if ok, err := p.hasSocket(hint, inode); !ok {
				return -1, err
			}
			return hint, nil
		},
		func(p *process) (int, error) { return p.findSocket(inode) },
	}
	for _, find := range find {
		for _, pid := range pids {
			p, n, err := childWith(m, pid, find)
			if p != nil {
				l.hint.Store(int32(n))
			}
			if p != nil || err != nil {
				return p, n, err
			}
		}
	}
	return nil, 0, fmt.Errorf("%w: no worker of process %d has it", ErrGone, master)
}

// allow returns nil if the process runs a program that may be looked at.
func (l *Local) allow(p *process) error {
	ok, err := p.matches(l.patterns())
	if err != nil || ok {
		return err
	}
	path, _ := p.program()
	return fmt.Errorf("%w: process %d runs %s; what is looked at is %s, owned by root", ErrProgram, p.pid, path,
		strings.Join(l.patterns(), " or "))
}

// childWith opens a child of the master and returns it if find finds the socket in it; else nil.
func childWith(master *process, pid int, find func(*process) (int, error)) (*process, int, error) {
	p, err := openProcess(pid)
	if err != nil {
		return nil, 0, nil // it has ended
	}
	n, err := find(p)
	if err == nil && n >= 0 {
		if err = p.isChildOf(master); err == nil {
			return p, n, nil
		}
	}
	p.close()
	if errors.Is(err, ErrGone) {
		err = nil
	}
	return nil, 0, err
}

// module returns PHP's session module in a worker. Workers do not load another one. Modules are kept by the process's
// id and start, as ids are used again. Callers that look for one at the same time find the same.
func (l *Local) module(p *process) (module, error) {
	s, err := p.stat()
	if err != nil {
		return module{}, err
	}
	id := processID{p.pid, s.startedTick}
	l.mu.Lock()
	m, ok := l.modules[id]
	l.mu.Unlock()
	if ok {
		return m, nil
	}
	if m, err = l.programs.module(p); err != nil {
		return m, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.modules == nil || len(l.modules) >= maxModules {
		l.modules = make(map[processID]module)
	}
	l.modules[id] = m
	return m, nil
}
