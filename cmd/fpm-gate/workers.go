package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// probeWorkers tries for each upstream address whether its workers can be looked at, by this process if it has the
// rights and by the helper, and writes a line for each try. A gate serves without that too, so nothing of it is an
// error.
func probeWorkers(w io.Writer, c *config.Config) {
	// Who looks is up to the gate's own process, by its rights; see watching.finder. Those of this process may be others.
	finders := []struct {
		name string
		phpworker.Finder
	}{{"the helper", &phpworker.Helper{}}}
	if phpworker.Rights() == nil {
		finders = append(finders, struct {
			name string
			phpworker.Finder
		}{"a process with these rights", &phpworker.Local{}})
	}
	for _, g := range c.Gates {
		options := gateOptions(c, g)
		keys := options.TerminatingKeys()
		for _, a := range g.Upstream.Addresses {
			seen := false
			for _, f := range finders {
				found, err := probeWorker(f, g.Upstream, a)
				lack := f.Ready()
				switch {
				case err != nil && errors.Is(lack, phpworker.ErrRights): // which says more than what failed first
					found = "no: " + lack.Error()
				case err != nil:
					found = "no: " + err.Error()
				case lack != nil:
					found += "; but " + lack.Error()
				}
				seen = seen || err == nil && lack == nil
				fmt.Fprintf(w, "gate %q: workers of %s, seen by %s: %s\n", g.Name, a, f.name, found)
			}
			if keys != "" && !seen {
				fmt.Fprintf(w, "gate %q: warning: %s cannot end scripts of %s: a stuck script goes on"+
					" without its lock, and keeps PHP's own; docs/WORKERS.md says what to do\n", g.Name, keys, a)
			}
		}
	}
}

// workerPatience bounds the wait for a worker of PHP-FPM to accept a connection.
const workerPatience = 2 * time.Second

// probeWorker makes a connection, and reports what is seen of the worker that accepts it.
func probeWorker(f phpworker.Finder, u config.Upstream, a netaddr.Addr) (found string, err error) {
	nc, err := net.DialTimeout(a.Network, a.Address, u.ConnectTimeout)
	if err != nil {
		return "", err
	}
	// PHP-FPM accepts it and waits for a request: it takes one worker for as long as the looks last.
	defer nc.Close()
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return "", err
	}
	w, err := awaitWorker(f, raw)
	if err != nil {
		return "", err
	}
	defer w.Close()
	activity, err := w.Activity()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("yes, PHP %s, process %d", activity.Version, w.PID()), nil
}

// awaitWorker finds the worker of a connection, once one has accepted it.
func awaitWorker(f phpworker.Finder, conn syscall.RawConn) (phpworker.Worker, error) {
	for until := time.Now().Add(workerPatience); ; time.Sleep(5 * time.Millisecond) {
		w, err := f.Find(conn)
		if !errors.Is(err, phpworker.ErrWaiting) || time.Now().After(until) {
			return w, err
		}
	}
}
