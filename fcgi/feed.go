package fcgi

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// watchDelay is how long a script may run before its web server is watched for hanging up. Most are done by
// then, and never cost a goroutine.
const watchDelay = 20 * time.Millisecond

// feed reads what the web server sends while its request is served: it forwards stdin, has management records
// answered, and notices when the web server hangs up. It runs in a goroutine of its own, from start to stop:
// at once where stdin has yet to come, else only if the script takes its time.
type feed struct {
	x         *Exchange
	timer     *time.Timer
	running   sync.WaitGroup // of the goroutine, from start on
	stopped   bool
	late      *lateCall   // nil: Late is not to be called
	whole     atomic.Bool // stdin has come whole, and has been sent
	gone      atomic.Bool // the web server has hung up
	once      sync.Once   // of hangUp
	silenced  bool        // upstream's reading side is shut: PHP-FPM's next write fails
	forwarded bool        // something beyond what went out first has been sent
	unsent    bool        // PHP-FPM did not take all of it
	err       error       // what the web server did wrong

	mu     sync.Mutex // guards ending, and the conn's deadline with it: run may only begin when stop is called
	ending bool
}

func (f *feed) start(x *Exchange) {
	*f = feed{x: x}
	f.running.Add(1)
	if x.Late != nil {
		f.late = newLateCall()
	}
	f.whole.Store(x.Request.stdin.whole() && f.late == nil)
	if f.whole.Load() {
		f.timer = time.AfterFunc(watchDelay, f.run)
		return
	}
	go f.run()
}

// stop ends the feed, and hands the conn over to its next reader. A second call does nothing.
func (f *feed) stop() {
	if f.x == nil || f.stopped {
		return
	}
	f.stopped = true
	if f.timer != nil && f.timer.Stop() {
		f.running.Done()
		return
	}
	c := f.x.Request.conn
	f.mu.Lock()
	f.ending = true
	_ = c.nc.SetReadDeadline(past)
	f.mu.Unlock()
	if f.late != nil {
		f.late.cancel()
	}
	_ = f.x.up.nc.SetWriteDeadline(past)
	f.running.Wait()
	_ = c.nc.SetReadDeadline(time.Time{})
	_ = f.x.up.nc.SetWriteDeadline(time.Time{})
}

// run copies until stdin is whole, and then watches, until it is stopped or the web server is gone. What the web server
// sends after the end of stdin is left to the conn's next reader.
func (f *feed) run() {
	defer f.running.Done()
	f.forgetHeadDeadline()
	if f.whole.Load() {
		f.watch()
	} else if f.copy() {
		f.endStdin()
		f.watch()
	}
}

// copy forwards stdin, and reports whether it has come whole and the web server is still there.
func (f *feed) copy() bool {
	r := f.x.Request
	b := newBuffer(max(middleBuffer, len(r.rest)))
	b.n = copy(b.b, r.rest)
	defer func() {
		// What is left belongs to the next request; its place is the conn's buffer, which nobody else uses now
		// that all of this request has been sent from it, or cannot be sent again.
		r.rest = append([]byte(nil), b.bytes()...)
		b.free()
	}()
	if f.late != nil && b.n > 0 { // it came with the head, and has been left to us
		if err := f.forward(b); err != nil {
			f.fail(err)
			return false
		}
	}
	for !r.stdin.whole() {
		if b.n == len(b.b) {
			if b = b.grown(maxRecord); b.n == len(b.b) {
				f.fail(fmt.Errorf("%w: record is too long", ErrMalformed))
				return false
			}
		}
		n, err := f.read(b.space())
		b.n += n
		if n > 0 {
			if err := f.forward(b); err != nil {
				f.fail(err)
				return false
			}
			if r.stdin.aborted {
				f.abort()
				return false
			}
		}
		if err != nil {
			f.readFailed(err)
			return false
		}
	}
	return true
}

// read reads what comes next of stdin. What may hold its end is left in the socket as well; see leftInSocket.
func (f *feed) read(b []byte) (int, error) {
	c := f.x.Request.conn
	if err := c.take(); err != nil {
		return 0, err
	}
	if left := f.x.Request.stdin.left; left > smallBuffer {
		return c.nc.Read(b[:min(left, len(b))]) // within a record: stdin does not end here, and need not be copied twice
	}
	return c.look(b)
}

// watch waits until the web server hangs up or aborts the request.
func (f *feed) watch() {
	r := f.x.Request
	raw, err := r.conn.nc.SyscallConn()
	if err != nil {
		f.hangUp()
		return
	}
	aborted := false
	err = raw.Read(func(fd uintptr) bool {
		aborted = r.conn.aborts(fd)
		return aborted || netpoll.PeerClosed(fd)
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // stop
	case aborted:
		r.stdin.aborted = true
		f.abort()
	default:
		f.hangUp()
	}
}

// abort ends a request that the web server has aborted.
func (f *feed) abort() {
	f.hangUp()
	f.x.Request.endAborted()
}

// forgetHeadDeadline lifts the deadline that the head of the request had, but not the one by which stop ends run.
func (f *feed) forgetHeadDeadline() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ending {
		_ = f.x.Request.conn.nc.SetReadDeadline(time.Time{})
	}
}

// forward sends on what of b is the application's, and keeps what is not whole.
func (f *feed) forward(b *buffer) error {
	forward, rest, err := f.x.Request.stdin.scan(b.bytes())
	if f.late != nil {
		forward = f.x.back.split(forward)
		if len(f.x.back.held) > maxRecord {
			err = cmp.Or(err, fmt.Errorf("%w: stdin is longer than CONTENT_LENGTH", ErrMalformed))
		}
	}
	f.send(forward)
	if f.late != nil && f.late.isOver() {
		f.sendHeld()
	}
	b.n = copy(b.b, rest)
	if f.late == nil && f.x.Request.stdin.whole() {
		f.sent()
	}
	return err
}

// send sends bytes of stdin to PHP-FPM. An error says that PHP-FPM wants no more of it. It may have answered before it
// closed, so its answer tells; what still comes is read and dropped.
func (f *feed) send(b []byte) {
	if len(b) == 0 {
		return
	}
	f.forwarded = true
	if _, err := f.x.up.nc.Write(b); err != nil {
		f.unsent = true
	}
}

// sent is called when all of stdin has been sent.
func (f *feed) sent() {
	if !f.whole.Swap(true) && f.x.Sent != nil {
		f.x.Sent()
	}
}

// fail ends a request whose web server does not speak FastCGI any more.
func (f *feed) fail(err error) {
	f.err = f.x.Request.conn.refuse(fmt.Errorf("read stdin: %w", err))
	f.hangUp()
}

// readFailed tells a web server that has gone from one that has only said all it has to say.
func (f *feed) readFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return // stop
	}
	raw, rawErr := f.x.Request.conn.nc.SyscallConn()
	if rawErr != nil {
		f.hangUp()
		return
	}
	gone := err != io.EOF
	if !gone {
		if !f.whole.Load() {
			f.endStdin()
		}
		gone = raw.Read(netpoll.PeerClosed) == nil
	}
	if gone {
		f.hangUp()
	}
}

// hungUp says whether the web server has gone.
func (f *feed) hungUp() bool { return f.gone.Load() }

// clean says whether the connection to PHP-FPM has got all of the request and nothing else.
func (f *feed) clean() bool { return f.whole.Load() && !f.unsent && !f.hungUp() }

// hangUp does what the web server's going means for the script. On a unix socket its next write fails, as if
// the gate had gone too, while the connection still tells when it ends. On TCP its connection is reset if it prints;
// see cutOff. On a unix socket whose stdin is cut short, its output is read to the end and dropped.
func (f *feed) hangUp() {
	f.once.Do(func() {
		f.gone.Store(true)
		if f.x.finished {
			return
		}
		if f.late != nil && !f.late.hangUp() {
			f.endStdin() // the script is still to begin, with as much of its body as has come
			return
		}
		f.leave()
	})
}

// leave is hangUp once the script may have begun.
func (f *feed) leave() {
	x := f.x
	if x.HungUp != nil {
		x.HungUp()
	}
	whole := f.whole.Load()
	if whole && x.up.isUnix() {
		f.silenced = true
		_ = x.up.nc.CloseRead()
		return
	}
	if !whole {
		_ = x.up.nc.CloseWrite()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted == nil && !x.cut {
		_ = x.up.nc.SetReadDeadline(time.Now().Add(x.AbandonAfter))
	}
}
