package netpoll

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a net.Conn for the sockets of the data path. Its system calls do not block and take about a microsecond, so
// it makes them without telling Go's scheduler, which would otherwise detach the processor and look for another thread
// for each call.
type socket struct {
	fd     int
	unix   bool // else TCP
	poller *poller
	slot   *slot        // shared with earlier and later sockets of the same number
	serial uint32       // unique to this socket; tells its events from those of the others
	state  atomic.Int64 // see closing and closed

	reading deadlineState
	writing deadlineState
	writeMu sync.Mutex // serializes Write, so that the bytes of each stay together

	watchMu sync.Mutex
	watched uint32 // the events that epoll reports; 0: the socket is not in the poller yet
}

var _ Conn = (*socket)(nil)

// The parts of socket.state. Its lower half counts the goroutines that use fd: enter adds one and leave takes it away.
const (
	// closing is set by Close and never cleared. With it enter fails, which lets the count only fall in the end.
	closing = 1 << 32
	// closed takes the place of closing when the count has reached zero: whoever sets it closes fd. Its one count is never
	// taken away, so an enter that fails later and leaves again does not reach zero a second time.
	closed = closing | 1
)

// serials distinguishes sockets that have had the same file descriptor.
var serials atomic.Uint32

// newSocket returns a socket on fd, which must be non-blocking. It owns fd, even if it returns an error.
func newSocket(fd int, isUnix bool) (*socket, error) {
	p, err := sharedPoller()
	if err == nil && fd > maxFD {
		err = unix.EMFILE
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{fd: fd, unix: isUnix, poller: p, slot: p.slot(fd), serial: serials.Add(1)}
	s.slot.hungUp.Store(false)
	s.slot.serial.Swap(s.serial) // the previous socket with this number no longer uses the slot
	return s, nil
}

// DialUnix connects to a unix socket, which succeeds or fails at once: with EAGAIN if the listener's backlog is full.
func DialUnix(path string) (Conn, error) {
	sa, err := unixAddr(path)
	if err != nil {
		return nil, err
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX,
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	// A non-blocking connect of a unix socket is never in progress, as one over TCP is: unix(7).
	_, _, errno = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa.raw)), uintptr(sa.length))
	if errno != 0 {
		_ = unix.Close(int(fd))
		return nil, &net.OpError{
			Op: "dial", Net: "unix", Addr: &net.UnixAddr{Net: "unix", Name: path},
			Err: os.NewSyscallError("connect", errno),
		}
	}
	s, err := newSocket(int(fd), true)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// sockaddr is the address of a unix socket in the kernel's form.
type sockaddr struct {
	raw    unix.RawSockaddrUnix
	length int
}

// unixAddr returns path as an address. It leaves room for the NUL at the end. Abstract addresses, which begin with a
// NUL, never come here: netaddr takes paths only.
func unixAddr(path string) (sockaddr, error) {
	sa := sockaddr{raw: unix.RawSockaddrUnix{Family: unix.AF_UNIX}}
	if len(path) == 0 || len(path) >= len(sa.raw.Path) {
		return sa, &net.AddrError{Err: "path of a unix socket is empty or too long", Addr: path}
	}
	for i := range len(path) {
		sa.raw.Path[i] = int8(path[i])
	}
	sa.length = int(unsafe.Offsetof(sa.raw.Path)) + len(path) + 1
	return sa, nil
}

// enter takes a reference to fd until leave. It returns net.ErrClosed after Close. Without a reference another
// goroutine could close fd, and the kernel could give its number to another socket in the middle of a system call.
func (s *socket) enter() error {
	if s.state.Add(1)&closing != 0 {
		s.leave()
		return net.ErrClosed
	}
	return nil
}

// leave drops a reference, and closes fd with the last one after Close.
func (s *socket) leave() {
	if s.state.Add(-1) == closing && s.state.CompareAndSwap(closing, closed) {
		s.slot.serial.Store(0) // before close: from then on the number may be another socket's
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s.fd), 0, 0)
	}
}

// Close closes the socket. Reads and writes in progress return net.ErrClosed.
func (s *socket) Close() error {
	if err := s.enter(); err != nil {
		return err
	}
	for {
		old := s.state.Load()
		if old&closing != 0 { // another Close was faster
			s.leave()
			return net.ErrClosed
		}
		if s.state.CompareAndSwap(old, old|closing) {
			break
		}
	}
	// Both directions: their goroutines hold references, so fd is closed only once they have returned.
	s.slot.read.wake()
	s.slot.write.wake()
	s.leave()
	return nil
}

// Read reads what has arrived, and waits only if nothing has.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	// As package net: a deadline that has passed is an error even if bytes have arrived.
	if s.reading.passed() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.wait(&s.slot.read, &s.reading, unix.EPOLLIN); err != nil {
				return 0, err
			}
		default:
			return 0, os.NewSyscallError("read", errno)
		}
	}
}

// Write writes all of b. Concurrent writes are not interleaved.
func (s *socket) Write(b []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	written := 0
	for written < len(b) {
		if s.writing.passed() {
			return written, os.ErrDeadlineExceeded
		}
		// MSG_NOSIGNAL: a peer that has gone is an error, not a signal.
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[written])),
			uintptr(len(b)-written), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			written += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			// EPOLLIN as well: s.watched only grows, and a reader may wait, or may do so later.
			if err := s.wait(&s.slot.write, &s.writing, unix.EPOLLIN|unix.EPOLLOUT); err != nil {
				return written, err
			}
		default:
			return written, os.NewSyscallError("write", errno)
		}
	}
	return written, nil
}

// readAnswer is Read when no data can have arrived yet: it waits first, which saves a system call. Only the end can
// have arrived, along with the data of an earlier Read.
func (s *socket) readAnswer(b []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if !s.slot.hungUp.Load() { // else epoll has reported the end already, and will not do so again
		if err := s.wait(&s.slot.read, &s.reading, unix.EPOLLIN); err != nil {
			return 0, err
		}
	}
	return s.Read(b)
}

// wait waits until the socket may be ready, as long as the deadline allows. It can return spuriously.
func (s *socket) wait(w *waitState, d *deadlineState, events uint32) error {
	if err := s.watch(events); err != nil {
		return err
	}
	d.waiting.Store(true) // from now on a change of the deadline wakes us
	if err := s.mayWait(d); err != nil {
		return err
	}
	if at := d.at.Load(); at == 0 {
		<-w.ready // Close wakes it too, and so does a new deadline
	} else {
		w.waitFor(time.Duration(at) - time.Since(epoch))
	}
	d.waiting.Store(false)
	return s.mayWait(d)
}

// mayWait returns an error if waiting is no longer possible.
func (s *socket) mayWait(d *deadlineState) error {
	if s.state.Load()&closing != 0 {
		return net.ErrClosed
	}
	if d.passed() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// watch makes the poller report events, if it does not yet.
func (s *socket) watch(events uint32) error {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	if s.watched&events == events {
		return nil
	}
	op := unix.EPOLL_CTL_ADD
	if s.watched != 0 {
		op = unix.EPOLL_CTL_MOD
	}
	if err := s.poller.watch(s.fd, s.serial, op, events); err != nil {
		return err
	}
	s.watched = events
	return nil
}

// deadlineState is the deadline of one direction, in nanoseconds since epoch, or 0.
type deadlineState struct {
	at      atomic.Int64
	waiting atomic.Bool // a goroutine waits, or is about to
}

// epoch is before all deadlines that are still to come. It has a monotonic clock reading, so a deadline stays where it
// is when the system's clock is set.
var epoch = time.Now().Add(-time.Second)

// passed reports whether the deadline has passed. Without a deadline it makes no call for the time.
func (d *deadlineState) passed() bool {
	at := d.at.Load()
	return at != 0 && int64(time.Since(epoch)) >= at
}

// set sets the deadline, and wakes a goroutine that waits so that it uses the new one.
func (d *deadlineState) set(t time.Time, w *waitState) {
	if t.IsZero() {
		d.at.Store(0)
	} else {
		d.at.Store(max(int64(t.Sub(epoch)), 1)) // 1: long past, where 0 means none
	}
	if d.waiting.Load() { // else wait sees the new deadline: it sets waiting before it reads at
		w.wake()
	}
}

func (s *socket) SetReadDeadline(t time.Time) error {
	s.reading.set(t, &s.slot.read)
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writing.set(t, &s.slot.write)
	return nil
}

func (s *socket) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// CloseRead and CloseWrite shut one direction. The descriptor stays open until Close.
func (s *socket) CloseRead() error  { return s.shutdown(unix.SHUT_RD) }
func (s *socket) CloseWrite() error { return s.shutdown(unix.SHUT_WR) }

func (s *socket) shutdown(how int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	err := os.NewSyscallError("shutdown", unix.Shutdown(s.fd, how))
	if how == unix.SHUT_RD {
		s.slot.read.wake() // epoll does not report our own shutdown
	}
	return err
}

// Nothing on the data path asks for addresses, and finding them would take a system call for each connection.

func (s *socket) LocalAddr() net.Addr  { return &net.UnixAddr{Net: "unix"} }
func (s *socket) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// SyscallConn gives access to fd.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// rawSocket is a socket as a syscall.RawConn. As with package net's, fd is valid only until the function returns.
type rawSocket struct{ s *socket }

func (r rawSocket) Control(f func(fd uintptr)) error {
	if err := r.s.enter(); err != nil {
		return err
	}
	defer r.s.leave()
	f(uintptr(r.s.fd))
	return nil
}

func (r rawSocket) Read(f func(fd uintptr) bool) error {
	s := r.s
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	for !s.reading.passed() {
		if f(uintptr(s.fd)) {
			return nil
		}
		if err := s.wait(&s.slot.read, &s.reading, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

func (r rawSocket) Write(f func(fd uintptr) bool) error {
	s := r.s
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	for !s.writing.passed() {
		if f(uintptr(s.fd)) {
			return nil
		}
		if err := s.wait(&s.slot.write, &s.writing, unix.EPOLLIN|unix.EPOLLOUT); err != nil {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}
