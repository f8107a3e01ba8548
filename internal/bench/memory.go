package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureMemory measures what a waiting request costs in the gate, against the
// PHP-FPM worker that would wait without it, and what is left of it afterwards.
// The requests come from clients of its own, because nginx would need more files
// than a user has; each of the sessions has a script that holds its lock.
func measureMemory(st *stage) ([]row, error) {
	n, err := affordable(full(st, 10000, 500))
	if err != nil {
		return nil, err
	}
	php, err := st.PHPFPM(rig.PHPOptions{Workers: workers})
	if err != nil {
		return nil, err
	}
	lock := fmt.Sprintf(`lock {
    max_wait    = "10m"
    expiry      = "10m"
    max_waiters = %d
  }`, n)
	gate, err := st.startGate(php, gateSettings{upstream: recommended.upstream, block: lock})
	if err != nil {
		return nil, err
	}
	crowd := &crowd{stage: st, php: php, gate: gate}
	return crowd.measure(n)
}

// affordable returns n, or as many connections as a process may have.
func affordable(n int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	const others = 200
	return int(min(uint64(n), max(limit.Max, 2*others)-others)), nil
}

// crowd is requests that wait in the gate.
type crowd struct {
	*stage
	php  *rig.PHPFPM
	gate *rig.Gate

	files  int // that the gate had open before
	group  sync.WaitGroup
	served atomic.Int64
	failed atomic.Pointer[error]
}

func (c *crowd) measure(n int) (rows []row, err error) {
	if c.files, err = c.gate.Files(); err != nil {
		return nil, err
	}
	if err := c.traffic(full(c.stage, 2*time.Second, 100*time.Millisecond)); err != nil {
		return nil, err
	}
	before, err := c.settled()
	if err != nil {
		return nil, err
	}
	first, err := c.waiting(n, before)
	if err != nil {
		return nil, err
	}
	worker, err := c.worker()
	if err != nil {
		return nil, err
	}
	if err := c.dismiss(n); err != nil {
		return nil, err
	}
	second, err := c.waiting(n, before)
	if err != nil {
		return nil, err
	}
	left, err := c.left(n, before)
	return []row{
		waitingRow(fmt.Sprintf("Memory of a waiting request, of %d", n), first, worker),
		waitingRow("the same, after as many others", second, worker),
		left,
	}, err
}

func waitingRow(what string, each, worker float64) row {
	return row{
		what:   what,
		gate:   fmt.Sprintf("%.1f KiB", each),
		other:  fmt.Sprintf("%.0f KiB: a PHP-FPM worker with a script of three lines", worker),
		ratios: series{each / worker},
		value:  each,
		target: atMostOf(20, "KiB"),
	}
}

// waiting gathers n requests, and returns how many KiB of memory each has added
// to before.
func (c *crowd) waiting(n int, before int64) (float64, error) {
	if err := c.gather(n); err != nil {
		return 0, err
	}
	c.say("%s: %d requests wait", c.name, n)
	now, err := c.settled()
	return kib(now-before) / float64(n), err
}

func kib(bytes int64) float64 { return float64(bytes) / 1024 }

func mib(bytes int64) float64 { return kib(bytes) / 1024 }

// traffic is some requests without a session.
func (c *crowd) traffic(d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := c.ask("/hello.php", "", nil); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// ask sends a request, calls sent, and waits for the response.
func (c *crowd) ask(script, session string, sent func()) error {
	cl, err := dial(c.ctx, c.gate.Addr)
	if err != nil {
		return err
	}
	defer cl.close()
	if err := cl.send(c.DocRoot, script, "", session); err != nil {
		return err
	}
	if sent != nil {
		sent()
	}
	var response bytes.Buffer
	if err := cl.receive(&response, nil); err != nil {
		return err
	}
	if bytes.HasPrefix(response.Bytes(), []byte("Status: ")) {
		return fmt.Errorf("get %s: %q", script, response.Bytes())
	}
	return nil
}

// settled returns the gate's private memory once it no longer changes.
func (c *crowd) settled() (int64, error) {
	last := int64(-1)
	for range 20 {
		m, err := c.gate.Memory()
		if err != nil || m.Private == last {
			return m.Private, err
		}
		last = m.Private
		time.Sleep(full(c.stage, 500*time.Millisecond, 20*time.Millisecond))
	}
	return last, nil
}

// gather sends the scripts that hold the locks, then n requests that wait for them.
func (c *crowd) gather(n int) error {
	if err := os.RemoveAll(c.goFile()); err != nil {
		return err
	}
	c.served.Store(0)
	c.start("/hold.php", workers)
	if err := c.await(func() (bool, error) {
		status, err := c.php.Status(c.ctx)
		return status.Active == workers, err
	}); err != nil {
		return err
	}
	c.start("/hello.php", n)
	return c.await(func() (bool, error) {
		now, err := c.gate.Files()
		return now >= c.files+n+2*workers, err
	})
}

// start sends n requests, and leaves them waiting for their responses.
func (c *crowd) start(script string, n int) {
	for i := range n {
		sent := make(chan struct{})
		c.group.Go(func() {
			once := sync.OnceFunc(func() { close(sent) })
			defer once()
			err := c.ask(script, fmt.Sprintf("memory%020d", i%workers), once)
			if err != nil {
				c.failed.CompareAndSwap(nil, &err)
				return
			}
			c.served.Add(1)
		})
		<-sent
	}
}

// await waits until something is so.
func (c *crowd) await(so func() (bool, error)) error {
	for {
		if err := c.failed.Load(); err != nil {
			return *err
		}
		if yes, err := so(); yes || err != nil {
			return err
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// worker returns how many KiB of private memory a PHP-FPM worker has.
func (c *crowd) worker() (float64, error) {
	var all series
	for _, pid := range c.php.Pids()[1:] { // the first is no worker
		m, err := rig.ProcessMemory(pid)
		if err != nil {
			return 0, err
		}
		all = append(all, kib(m.Private))
	}
	return all.median(), nil
}

// goFile is what the scripts that hold the locks wait for.
func (c *crowd) goFile() string { return filepath.Join(c.DocRoot, "go") }

// dismiss ends the scripts that hold the locks, and waits until all are served.
func (c *crowd) dismiss(n int) error {
	if err := os.WriteFile(c.goFile(), nil, 0o644); err != nil {
		return err
	}
	c.group.Wait()
	if err := c.failed.Load(); err != nil {
		return *err
	}
	if got, want := c.served.Load(), int64(n+workers); got != want {
		return fmt.Errorf("served %d requests, want %d", got, want)
	}
	return nil
}

// leftTime is how long what is left may take to go: Go collects garbage at least
// every two minutes, and a pool of buffers needs two collections.
const leftTime = 5 * time.Minute

// left lets all requests be served, and measures what the gate does not give back
// to the system, now and later, with some visitors about.
func (c *crowd) left(n int, before int64) (row, error) {
	if err := c.dismiss(n); err != nil {
		return row{}, err
	}
	first, err := c.gate.Memory()
	if err != nil {
		return row{}, err
	}
	const enough = 1 // KiB of each
	served, now := time.Now(), first
	for time.Since(served) < full(c.stage, leftTime, 100*time.Millisecond) && kib(now.Private-before) > enough*float64(n) {
		c.say("%s: %.0f MiB are left after %.0f s, %.0f MiB before",
			c.name, mib(now.Private), time.Since(served).Seconds(), mib(before))
		if err := c.traffic(full(c.stage, 10*time.Second, 100*time.Millisecond)); err != nil {
			return row{}, err
		}
		if now, err = c.gate.Memory(); err != nil {
			return row{}, err
		}
	}
	return row{
		what:   fmt.Sprintf("Memory left of each, %.0f s after the last was served", time.Since(served).Seconds()),
		gate:   fmt.Sprintf("%.1f KiB", kib(now.Private-before)/float64(n)),
		other:  fmt.Sprintf("%.1f KiB: just after", kib(first.Private-before)/float64(n)),
		value:  kib(now.Private-before) / float64(n),
		target: atMostOf(enough, "KiB"),
	}, nil
}
