package phpworker

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes up one goroutine. The methods may be called concurrently, but for wait.
type alarm interface {
	set(after time.Duration) // in place of what was set before
	wait()                   // returns when the time has come; it may return earlier
	close()
}

// newAlarm returns an alarm of the kernel's, or if there is none one of the runtime's. For each of its own timers the
// runtime's monitor wakes up as well, which costs more than a round of looks.
func newAlarm() alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return newTimerAlarm()
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	raw, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil { // it is not in the runtime's poller
		_ = f.Close()
		return newTimerAlarm()
	}
	return &kernelAlarm{f, raw}
}

// kernelAlarm is a timerfd.
type kernelAlarm struct {
	file *os.File
	raw  syscall.RawConn
}

func (a *kernelAlarm) set(after time.Duration) {
	_ = a.raw.Control(func(fd uintptr) { setTimer(fd, max(after, 1)) })
}

func (a *kernelAlarm) wait() {
	_ = a.raw.Read(readTimer)
}

func (a *kernelAlarm) close() { _ = a.file.Close() }

// timerAlarm is a timer of the runtime's.
type timerAlarm struct{ *time.Timer }

func newTimerAlarm() alarm { return timerAlarm{time.NewTimer(time.Hour)} }

func (a timerAlarm) set(after time.Duration) { a.Reset(after) }
func (a timerAlarm) wait()                   { <-a.C }
func (a timerAlarm) close()                  { a.Stop() }
