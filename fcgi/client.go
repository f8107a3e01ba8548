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

// clientReader reads what the web server sends while its request is served: it forwards stdin, has management records
// answered, and notices when the web server hangs up. It runs in a goroutine of its own, from start to stop:
// at once where stdin has yet to come, else only if the script takes its time.
type clientReader struct {
	request *Request
	up      *upstream
	late    *lateCall // nil: Late is not to be called
	onSent  func()    // nil: it is not called
	orphan  *orphan   // what the script becomes if the web server hangs up

	timer     *time.Timer
	running   sync.WaitGroup // of the goroutine, from start on
	stopped   bool
	whole     atomic.Bool // stdin has come whole, and has been sent
	gone      atomic.Bool // the web server has hung up
	once      sync.Once   // of onGone
	forwarded bool        // something beyond what went out first has been sent
	unsent    bool        // PHP-FPM did not take all of it
	err       error       // what the web server did wrong

	mu     sync.Mutex // guards ending, and the conn's deadline with it: run may only begin when stop is called
	ending bool
}

func (cr *clientReader) start() {
	cr.running.Add(1)
	cr.whole.Store(cr.request.stdin.whole() && cr.late == nil)
	if cr.whole.Load() {
		cr.timer = time.AfterFunc(watchDelay, cr.run)
		return
	}
	go cr.run()
}

// stop ends the goroutine, and hands the conn over to its next reader. A second call does nothing.
func (cr *clientReader) stop() {
	if cr.request == nil || cr.stopped { // it has not started, or has been stopped
		return
	}
	defer func() { cr.stopped = true }() // once the goroutine, which reads it, has ended
	if cr.timer != nil && cr.timer.Stop() {
		cr.running.Done()
		return
	}
	c := cr.request.conn
	cr.mu.Lock()
	cr.ending = true
	_ = c.nc.SetReadDeadline(past)
	cr.mu.Unlock()
	if cr.late != nil {
		cr.late.cancel()
	}
	_ = cr.up.nc.SetWriteDeadline(past)
	cr.running.Wait()
	_ = c.nc.SetReadDeadline(time.Time{})
	_ = cr.up.nc.SetWriteDeadline(time.Time{})
}

// run copies until stdin is whole, and then watches, until it is stopped or the web server is gone. What the web server
// sends after the end of stdin is left to the conn's next reader.
func (cr *clientReader) run() {
	defer cr.running.Done()
	cr.forgetHeadDeadline()
	if cr.whole.Load() {
		cr.watch()
	} else if cr.copy() {
		cr.endStdin()
		cr.watch()
	}
}

// copy forwards stdin, and reports whether it has come whole and the web server is still there.
func (cr *clientReader) copy() bool {
	r := cr.request
	b := newBuffer(max(middleBuffer, len(r.rest)))
	b.n = copy(b.b, r.rest)
	defer func() {
		// What is left belongs to the next request; its place is the conn's buffer, which is free now
		// that all of this request has been sent from it, or cannot be sent again.
		r.rest = append([]byte(nil), b.bytes()...)
		b.free()
	}()
	if cr.late != nil && b.n > 0 && !cr.takes(b) { // it came with the head, and has been left to us
		return false
	}
	for !r.stdin.whole() {
		if b.n == len(b.b) {
			if b = b.grown(maxRecord); b.n == len(b.b) {
				cr.fail(fmt.Errorf("%w: record is too long", ErrMalformed))
				return false
			}
		}
		n, err := cr.read(b.space())
		b.n += n
		if n > 0 && !cr.takes(b) {
			return false
		}
		if err != nil {
			cr.readFailed(err)
			return false
		}
	}
	return true
}

// takes forwards what has come, and reports whether the request goes on: the web server may have aborted it, or sent
// what is no FastCGI.
func (cr *clientReader) takes(b *buffer) bool {
	if err := cr.forward(b); err != nil {
		cr.fail(err)
		return false
	}
	if cr.request.stdin.aborted {
		cr.abort()
		return false
	}
	return true
}

// read reads what comes next of stdin. What may hold its end is left in the socket as well; see input.
func (cr *clientReader) read(b []byte) (int, error) {
	c := cr.request.conn
	if err := c.in.take(); err != nil {
		return 0, err
	}
	if left := cr.request.stdin.left; left > smallBuffer {
		return c.nc.Read(b[:min(left, len(b))]) // within a record: stdin does not end here, and need not be copied twice
	}
	return c.in.look(b)
}

// watch waits until the web server hangs up or aborts the request.
func (cr *clientReader) watch() {
	r := cr.request
	raw, err := r.conn.nc.SyscallConn()
	if err != nil {
		cr.onGone()
		return
	}
	aborted := false
	err = raw.Read(func(fd uintptr) bool {
		aborted = r.conn.in.aborts(fd, r.ID)
		return aborted || netpoll.PeerClosed(fd)
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // stop
	case aborted:
		r.stdin.aborted = true
		cr.abort()
	default:
		cr.onGone()
	}
}

// abort ends a request that the web server has aborted.
func (cr *clientReader) abort() {
	cr.onGone()
	cr.request.endAborted()
}

// forgetHeadDeadline lifts the deadline that the head of the request had, but not the one by which stop ends run.
func (cr *clientReader) forgetHeadDeadline() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if !cr.ending {
		_ = cr.request.conn.nc.SetReadDeadline(time.Time{})
	}
}

// forward sends on what of b is the application's, and keeps what is not whole.
func (cr *clientReader) forward(b *buffer) error {
	forward, rest, err := cr.request.stdin.scan(b.bytes())
	if cr.late != nil {
		forward = cr.late.back.split(forward)
		if len(cr.late.back.held) > maxRecord {
			err = cmp.Or(err, fmt.Errorf("%w: stdin is longer than CONTENT_LENGTH", ErrMalformed))
		}
	}
	cr.send(forward)
	if cr.late != nil && cr.late.isOver() {
		cr.sendHeld()
	}
	b.n = copy(b.b, rest)
	if cr.late == nil && cr.request.stdin.whole() {
		cr.sent()
	}
	return err
}

// send sends bytes of stdin to PHP-FPM. An error says that PHP-FPM wants no more of it. It may have answered before it
// closed, so its answer decides; what still comes is read and dropped.
func (cr *clientReader) send(b []byte) {
	if len(b) == 0 {
		return
	}
	cr.forwarded = true
	if _, err := cr.up.nc.Write(b); err != nil {
		cr.unsent = true
	}
}

// sent is called when all of stdin has been sent.
func (cr *clientReader) sent() {
	if !cr.whole.Swap(true) && cr.onSent != nil {
		cr.onSent()
	}
}

// fail ends a request whose web server no longer speaks FastCGI.
func (cr *clientReader) fail(err error) {
	cr.err = cr.request.conn.refuse(fmt.Errorf("read stdin: %w", err))
	cr.onGone()
}

// readFailed tells a web server that has gone from one that has only said all it has to say.
func (cr *clientReader) readFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return // stop
	}
	raw, rawErr := cr.request.conn.nc.SyscallConn()
	if rawErr != nil {
		cr.onGone()
		return
	}
	gone := err != io.EOF
	if !gone {
		if !cr.whole.Load() {
			cr.endStdin()
		}
		gone = raw.Read(netpoll.PeerClosed) == nil
	}
	if gone {
		cr.onGone()
	}
}

// isGone reports whether the web server has hung up.
func (cr *clientReader) isGone() bool { return cr.gone.Load() }

// clean reports whether the connection to PHP-FPM has got all of the request and nothing else.
func (cr *clientReader) clean() bool { return cr.whole.Load() && !cr.unsent && !cr.isGone() }

// onGone has the script fail at its next output, as if the gate had gone with the web server; see orphan. Once the
// response has ended, its script is not ours to end.
func (cr *clientReader) onGone() {
	cr.once.Do(func() {
		cr.gone.Store(true)
		if cr.stopped {
			return
		}
		if cr.late == nil {
			cr.orphan.begin(cr.whole.Load())
			return
		}
		switch cr.late.onGone() {
		case lateAhead: // the script is still to begin, with as much of its body as has come
			cr.startLate()
		case lateOver:
			cr.orphan.begin(cr.whole.Load())
		}
	})
}

func (cr *clientReader) startLate() {
	cr.running.Add(1)
	go cr.callLate()
}

// callLate calls Late, and then sends what was held back. If the web server has hung up meanwhile, its script is an
// orphan from then on.
func (cr *clientReader) callLate() {
	defer cr.running.Done()
	cr.late.run()
	cr.sendHeld()
	cr.stdinOver()
	if cr.late.end() {
		cr.orphan.begin(cr.whole.Load())
	}
}

// endStdin is called when no more of stdin comes.
func (cr *clientReader) endStdin() {
	if cr.late == nil {
		cr.stdinOver()
		return
	}
	switch cr.late.begin() {
	case lateAhead:
		cr.startLate()
	case lateOver:
		cr.sendHeld()
		cr.stdinOver()
	}
}

// sendHeld sends what was held back of stdin. What comes after that, maybe in the middle of a record, is not held back.
func (cr *clientReader) sendHeld() {
	cr.send(cr.late.back.held)
	cr.late.back = holdback{off: true}
}

// stdinOver is called when all that has come of stdin has been sent, and no more comes.
func (cr *clientReader) stdinOver() {
	if cr.request.stdin.whole() {
		cr.sent()
	} else {
		_ = cr.up.nc.CloseWrite() // PHP-FPM should not wait for it
	}
}
