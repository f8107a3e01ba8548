package phpworker

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of this file never wait, so the runtime need not be told: that would cost more than the calls, as it
// wakes the runtime's monitor in a process that is idle otherwise.

// clockGettime reads a clock.
func clockGettime(clock int32, ts *unix.Timespec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(ts)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setTimer has a timerfd expire once.
func setTimer(fd uintptr, after time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(after))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

// readTimer reports whether a timerfd that does not block has expired.
func readTimer(fd uintptr) bool {
	var expired uint64
	_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&expired)), unsafe.Sizeof(expired))
	return errno != unix.EAGAIN
}
