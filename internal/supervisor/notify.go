package supervisor

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// notifier notifies systemd of how the service stands.
type notifier struct {
	env    Environment
	log    hclog.Logger
	silent atomic.Bool // systemd hears of the next process now
}

func (n *notifier) notify(state ...string) {
	if n.silent.Load() {
		return
	}
	if err := n.env.Notify(strings.Join(state, "\n")); err != nil {
		n.log.Debug("sd_notify failed", "error", err)
	}
}

func (n *notifier) ready(status string) { n.notify(daemon.SdNotifyReady, status) }

// reloading says that a reload has begun. Type=notify-reload wants to know when, by a clock that systemd has too.
func (n *notifier) reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // never fails
	usec := now.Nano() / int64(time.Microsecond/time.Nanosecond)
	n.notify(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", usec))
}

func (n *notifier) stopping() { n.notify(daemon.SdNotifyStopping, "STATUS=draining") }

// feedWatchdog notifies systemd, thrice per interval, that the server is well, until done is closed. When it is not, or
// when health does not return, systemd hears nothing: it has the process dump its goroutines, and starts another one.
func (n *notifier) feedWatchdog(
	interval time.Duration, health func() error, status func() string, done <-chan struct{},
) {
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if err := health(); err != nil {
			n.log.Error("health check failed, withholding the watchdog ping", "error", err)
			continue
		}
		n.notify(daemon.SdNotifyWatchdog, status())
	}
}
