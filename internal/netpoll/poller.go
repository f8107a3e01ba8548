package netpoll

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller notifies sockets that they are ready. It is an epoll instance of our own, nested in the one of Go's runtime: a
// socket joins it only when it first has to wait, and never has to leave it. The runtime's own way would cost a request
// six unnecessary system calls, and the scheduler would wake for each of the others.
type poller struct {
	epfd int
	// chunks grow with the largest descriptor in use, and are never freed.
	chunks [1 << 10]atomic.Pointer[[slotsPerChunk]slot] // by file descriptor
}

const slotsPerChunk = 1 << 10

// slot is the wait state of one descriptor number, reused by successive sockets with that number. A late wake for an
// earlier socket can wake the current one, which finds nothing and waits again.
type slot struct {
	serial atomic.Uint32 // of the socket that has the number now
	hungUp atomic.Bool   // its peer has shut its side, which epoll reports only once
	read   waitState
	write  waitState
}

// waitState is one direction of a slot. At most one goroutine waits there.
type waitState struct {
	ready chan struct{} // holds one wake
	timer *time.Timer   // wakes for the deadline
}

// wake makes the goroutine that waits, or the next one, check again.
func (w *waitState) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// waitFor waits for a wake, or until d has passed.
func (w *waitState) waitFor(d time.Duration) {
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.wake)
	} else {
		w.timer.Reset(d)
	}
	<-w.ready
	w.timer.Stop()
}

// sharedPoller starts the poller with the first socket.
var sharedPoller = sync.OnceValues(newPoller)

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // so that Go's runtime polls it
		return nil, fmt.Errorf("epoll: %w", err)
	}
	raw, err := os.NewFile(uintptr(epfd), "epoll").SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p := &poller{epfd: epfd}
	go p.run(raw)
	return p, nil
}

// run dispatches events. It never returns.
func (p *poller) run(raw syscall.RawConn) {
	events := make([]unix.EpollEvent, 256)
	_ = raw.Read(func(uintptr) bool {
		// The runtime reports the epoll instance edge-triggered, so all events must be taken before waiting again.
		for {
			n := p.take(events)
			for _, e := range events[:n] {
				p.dispatch(e)
			}
			if n < len(events) {
				return false // wait: the runtime will report what comes from now on
			}
		}
	})
}

// take takes events without waiting. An error, such as EINTR, counts as none: the runtime reports the next event.
func (p *poller) take(events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// dispatch wakes the goroutines that wait for a socket. Waking one for nothing does no harm: it tries, and waits again.
func (p *poller) dispatch(e unix.EpollEvent) {
	s := p.slot(int(e.Fd))
	// watch has put the serial into the event's user data, next to the descriptor.
	if s.serial.Load() != uint32(e.Pad) {
		return // the socket has been closed
	}
	if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.hungUp.Store(true)
	}
	if e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.read.wake()
	}
	if e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.write.wake()
	}
}

// slot returns the slot of a file descriptor. It creates slots in chunks.
func (p *poller) slot(fd int) *slot {
	chunk := &p.chunks[fd/slotsPerChunk]
	slots := chunk.Load()
	if slots == nil {
		made := new([slotsPerChunk]slot)
		for i := range made {
			made[i].read.ready = make(chan struct{}, 1)
			made[i].write.ready = make(chan struct{}, 1)
		}
		if !chunk.CompareAndSwap(nil, made) {
			made = chunk.Load()
		}
		slots = made
	}
	return &slots[fd%slotsPerChunk]
}

// maxFD is the largest file descriptor that a poller has a slot for.
const maxFD = (1<<10)*slotsPerChunk - 1

// watch makes epoll report the events of a socket from now on, including those that it is already ready for.
func (p *poller) watch(fd int, serial uint32, op int, events uint32) error {
	e := unix.EpollEvent{Events: events | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: int32(serial)}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epfd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}
