package fcgi

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

// socket is a net.Conn for the sockets of the data path. Its system calls do not block and are over in a
// microsecond, so they are made without telling Go's scheduler, which would otherwise take the processor away
// from under them and look for another thread to go on with, for each.
type socket struct {
	fd     int
	unix   bool // else TCP
	poller *poller
	slot   *slot
	serial uint32
	state  atomic.Int64 // the goroutines that use fd; and closing, once it is to be closed

	reading deadlineState
	writing deadlineState
	writeMu sync.Mutex // one Write at a time: what one writes stays together
	watched uint32     // the events that the poller passes on; guarded by watchMu
	watchMu sync.Mutex
}

var _ stream = (*socket)(nil)

// closing is the bit of a socket's state that says that Close has been called.
const closing = 1 << 32

// serials tell the sockets apart that have had the same file descriptor.
var serials atomic.Uint32

// newSocket makes a socket of fd, which must not block, and which it owns from now on, in any case.
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
	s.slot.serial.Swap(s.serial) // whoever had the number is done with the slot
	return s, nil
}

// dialUnix connects to a unix socket. That is done at once, or refused.
func dialUnix(path string) (*socket, error) {
	sa, err := unixAddr(path)
	if err != nil {
		return nil, err
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa.raw)), uintptr(sa.length))
	if errno != 0 {
		_ = unix.Close(int(fd))
		return nil, &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Net: "unix", Name: path}, Err: os.NewSyscallError("connect", errno)}
	}
	return newSocket(int(fd), true)
}

// sockaddr is the address of a unix socket as the kernel wants it.
type sockaddr struct {
	raw    unix.RawSockaddrUnix
	length int
}

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

// enter says that fd is in use until leave, or that it is closed.
func (s *socket) enter() error {
	if s.state.Add(1)&closing != 0 {
		s.leave()
		return net.ErrClosed
	}
	return nil
}

// leave closes fd, if that is wanted and nobody else uses it.
func (s *socket) leave() {
	if s.state.Add(-1) == closing && s.state.CompareAndSwap(closing, closing|1) {
		s.slot.serial.Store(0)
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s.fd), 0, 0)
	}
}

// Close closes the socket. Who waits for it gets net.ErrClosed.
func (s *socket) Close() error {
	if err := s.enter(); err != nil {
		return err
	}
	for {
		old := s.state.Load()
		if old&closing != 0 { // somebody else was faster
			s.leave()
			return net.ErrClosed
		}
		if s.state.CompareAndSwap(old, old|closing) {
			break
		}
	}
	s.slot.read.wake()
	s.slot.write.wake()
	s.leave()
	return nil
}

// Read reads what is there, and waits only if nothing is.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
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

// Write writes all of b. What two goroutines write at the same time is not mixed.
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
		// MSG_NOSIGNAL: a peer that has gone is an error here, and not a signal.
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[written])),
			uintptr(len(b)-written), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			written += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.wait(&s.slot.write, &s.writing, unix.EPOLLIN|unix.EPOLLOUT); err != nil {
				return written, err
			}
		default:
			return written, os.NewSyscallError("write", errno)
		}
	}
	return written, nil
}

// ReadAnswer is Read where no data can have come yet: it waits first, and saves a look for nothing. What can have
// come is the end, along with the data of an earlier Read.
func (s *socket) ReadAnswer(b []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if !s.slot.hungUp.Load() {
		if err := s.wait(&s.slot.read, &s.reading, unix.EPOLLIN); err != nil {
			return 0, err
		}
	}
	return s.Read(b)
}

// wait waits until the socket may be ready, for as long as the deadline allows. It may be woken for nothing.
func (s *socket) wait(w *waitState, d *deadlineState, events uint32) error {
	if err := s.watch(events); err != nil {
		return err
	}
	d.waiting.Store(true) // from now on a deadline that is set wakes us
	if err := s.mayWait(d); err != nil {
		return err
	}
	if at := d.at.Load(); at == 0 {
		<-w.ready
	} else {
		w.waitUntil(time.Unix(0, at))
	}
	d.waiting.Store(false)
	return s.mayWait(d)
}

// mayWait says why there is nothing to wait for any more, if so.
func (s *socket) mayWait(d *deadlineState) error {
	if s.state.Load()&closing != 0 {
		return net.ErrClosed
	}
	if d.passed() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// watch has the poller pass events on, if it does not do so yet.
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

// deadlineState is until when one direction may wait: nanoseconds of Unix time, or 0.
type deadlineState struct {
	at      atomic.Int64
	waiting atomic.Bool // somebody waits, or is about to
}

func (d *deadlineState) passed() bool {
	at := d.at.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// set sets the deadline. Who waits is woken, to wait for that one.
func (d *deadlineState) set(t time.Time, w *waitState) {
	if t.IsZero() {
		d.at.Store(0)
	} else {
		d.at.Store(t.UnixNano())
	}
	if d.waiting.Load() {
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

func (s *socket) CloseRead() error  { return s.shutdown(unix.SHUT_RD) }
func (s *socket) CloseWrite() error { return s.shutdown(unix.SHUT_WR) }

func (s *socket) shutdown(how int) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	err := os.NewSyscallError("shutdown", unix.Shutdown(s.fd, how))
	if how == unix.SHUT_RD {
		s.slot.read.wake() // epoll tells it to others than us
	}
	return err
}

// The addresses of the data path's sockets are of no use to anybody.

func (s *socket) LocalAddr() net.Addr  { return &net.UnixAddr{Net: "unix"} }
func (s *socket) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// SyscallConn gives access to fd.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// rawSocket is a socket as a syscall.RawConn.
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
