package phpworker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// clockGettime reads a clock. It never waits, so the runtime need not be told: that would cost more than the call, as
// it wakes the runtime's monitor in a process that is idle otherwise.
func clockGettime(clock int32, ts *unix.Timespec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(ts)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
