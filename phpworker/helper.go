package phpworker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultHelper is where the helper of the packages listens.
const DefaultHelper = "/run/fpm-gate/helper.sock"

// Helper finds workers by asking a helper process for them: see Server. Each worker has a connection to the helper of
// its own, and passes its upstream connection, which is what gives the right to ask. After an error that wraps
// ErrHelper a worker is of no further use, and Find may be called again.
type Helper struct {
	Path    string        // of the helper's socket; DefaultHelper if empty
	Timeout time.Duration // for each answer; 2s if zero

	rounds rounds // of looks by way of a helper of an earlier version, which does not await changes
}

// Find asks the helper for the worker that has accepted conn.
func (h *Helper) Find(conn syscall.RawConn) (Worker, error) {
	nc, err := h.dial()
	if err != nil {
		return nil, err
	}
	w := h.worker(nc)
	if err := w.find(conn); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return w, nil
}

// Ready looks whether a helper listens, for this process, and has the rights itself. One of an earlier version does not
// say that.
func (h *Helper) Ready() error {
	nc, err := h.dial()
	if err != nil {
		return err
	}
	w := h.worker(nc)
	defer w.Close()
	err = w.ask(requestReady, "", nil)
	lack, answered := errors.AsType[*helperError](err)
	switch {
	case !answered:
		return err
	case errors.Is(lack, ErrHelper): // it does not know the request
		return nil
	}
	return &helperError{fmt.Sprintf("%v: %s", ErrHelper, lack.text), lack.kind}
}

// worker returns a worker of its own for nc, which it owns from now on. Its process is not known before find.
func (h *Helper) worker(nc *net.UnixConn) *helpedWorker {
	w := &helpedWorker{nc: nc, rounds: &h.rounds, timeout: h.Timeout}
	if w.timeout == 0 {
		w.timeout = defaultTimeout
	}
	return w
}

// dial connects to the helper. A unixpacket socket keeps the bounds of each packet, so one write is one request.
func (h *Helper) dial() (*net.UnixConn, error) {
	path := h.Path
	if path == "" {
		path = DefaultHelper
	}
	nc, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, dialError(path, err)
	}
	return nc, nil
}

// defaultTimeout is longer than a helper takes to stop a process that the kernel does not let go of.
const defaultTimeout = 2 * time.Second

// dialError says what to do where the helper does not listen, or not for this process.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w does not listen on %s: systemctl enable --now fpm-gate-helper.socket", ErrHelper, path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: this process may not connect to %s: see its owner and mode", ErrHelper, path)
	}
	return fmt.Errorf("%w: %w", ErrHelper, err)
}

// helpedWorker is a worker that a helper has found.
type helpedWorker struct {
	timeout time.Duration
	pid     int
	awaits  bool // the helper awaits changes
	rounds  *rounds

	mu     sync.Mutex // held while a request is sent
	nc     *net.UnixConn
	broken error // why nc is closed; nil while it is open
	asked  int   // requests that are to be answered at once, and have not been
	last   *Session

	answers textproto.Pipeline // one is received at a time, in the order of the requests
}

func (w *helpedWorker) PID() int { return w.pid }

// find passes the upstream connection to the helper and learns which process serves it. Control keeps the descriptor
// open until it is in the packet, which then holds the connection itself.
func (w *helpedWorker) find(conn syscall.RawConn) error {
	var found foundAnswer
	err := w.roundTrip(&found, func() (err error) {
		controlErr := conn.Control(func(fd uintptr) {
			_, _, err = w.nc.WriteMsgUnix([]byte{requestFind, protocolVersion[0]}, unix.UnixRights(int(fd)), nil)
		})
		if controlErr != nil {
			return errClosedHere
		}
		return err
	})
	if err == nil && found.PID <= 0 {
		err = fmt.Errorf("%w: its answer makes no sense: process %d", ErrHelper, found.PID)
	}
	w.pid, w.awaits = found.PID, found.Awaits
	return err
}

func (w *helpedWorker) Session() (s Session, err error) {
	err = w.ask(requestSession, "", &s)
	// A helper of a later version may know values that mean nothing here.
	if err == nil && (s.Status < Unknown || s.Status > Active || s.Opened < NotKnown || s.Opened > Before) {
		err = fmt.Errorf("%w: its answer makes no sense: status %d, opened %d", ErrHelper, s.Status, s.Opened)
	}
	return s, err
}

func (w *helpedWorker) Activity() (a Activity, err error) {
	err = w.ask(requestActivity, "", &a)
	return a, err
}

func (w *helpedWorker) Interrupt(id string) error { return w.ask(requestInterrupt, id, nil) }

func (w *helpedWorker) Terminate(id string) error { return w.ask(requestTerminate, id, nil) }

func (w *helpedWorker) Close() error {
	_ = w.breakOff(errClosedHere)
	return nil
}

// ask sends a request and parses its answer into v.
func (w *helpedWorker) ask(request byte, id string, v any) error {
	return w.roundTrip(v, func() error {
		_, err := w.nc.Write(append([]byte{request}, id...))
		return err
	})
}

// Await has the helper await a change, or asks it again and again.
func (w *helpedWorker) Await(ctx context.Context, seen Session, pause time.Duration) error {
	if w.awaits {
		return w.await(ctx, seen, pause)
	}
	var failed error
	err := w.rounds.await(ctx, pause, func(time.Time) (int, bool) {
		var s Session
		s, failed = w.Session()
		return helperCost, failed != nil || s != seen
	})
	if err != nil {
		return err // a look may go on, and set the other one
	}
	return failed
}

// await has the helper await a change. Any other request on this connection ends it, and so does the end of ctx:
// answers come in the order of the requests, so that request would otherwise wait for as long as the await.
func (w *helpedWorker) await(ctx context.Context, seen Session, pause time.Duration) error {
	turn, err := w.send(false, func() error {
		_, err := w.nc.Write(strconv.AppendInt([]byte{requestAwait}, pause.Milliseconds(), 10))
		return err
	})
	defer w.answers.EndResponse(turn)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, w.rest)
	defer stop()
	w.mu.Lock()
	changed := w.last == nil || *w.last != seen // by an answer that the helper has sent before
	// An await lasts for as long as nothing changes. A request that is to be answered soon has ended it by now, and its
	// deadline must stay.
	if w.asked == 0 {
		_ = w.nc.SetReadDeadline(time.Time{})
	}
	w.mu.Unlock()
	if changed {
		w.rest()
	}
	w.awaitAnswer() // for minutes, perhaps: without a buffer
	buffer := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buffer)
	answer, err := w.receive(buffer[:])
	if err != nil {
		return w.breakOff(err)
	}
	if len(answer) == 1 && answer[0] == answerSame {
		return ctx.Err() // nil: another request has ended it
	}
	return w.parsed(parseAnswer(answer, nil))
}

// awaitAnswer waits until there is something to receive, be it an error.
func (w *helpedWorker) awaitAnswer() {
	raw, err := w.nc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// rest ends an await of the helper's: its answer is to come at once. The goroutine of await calls it, or one that the
// end of ctx starts. The helper ignores it if the await has ended meanwhile.
func (w *helpedWorker) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.nc.SetDeadline(time.Now().Add(w.timeout))
	_, _ = w.nc.Write([]byte{requestRest})
}

// roundTrip sends a request and parses its answer. An answer that does not come in time, or makes no sense, ends the
// connection: the next one would be taken for it.
func (w *helpedWorker) roundTrip(v any, send func() error) error {
	turn, err := w.send(true, send)
	defer w.answers.EndResponse(turn)
	if err != nil {
		return err
	}
	defer w.answered()
	// The turn may have come late: each answer has its full time.
	_ = w.nc.SetReadDeadline(time.Now().Add(w.timeout))
	buffer := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buffer)
	answer, err := w.receive(buffer[:])
	if err != nil {
		return w.breakOff(err)
	}
	return w.parsed(w.parse(answer, v))
}

// send sends a request, and waits for the turn of its answer, which the caller ends in any case. What the helper awaits
// ends at once with a request that is to be answered soon. The function send is called with mu held, so that requests
// are written in the order of their turns.
func (w *helpedWorker) send(soon bool, send func() error) (turn uint, err error) {
	w.mu.Lock()
	turn = w.answers.Next()
	if err = w.broken; err == nil {
		_ = w.nc.SetWriteDeadline(time.Now().Add(w.timeout))
		if err = send(); err != nil {
			err = w.breakOffLocked(sendError(err))
		}
	}
	if err == nil && soon {
		// This wakes up the reader of an await, whose wait has no deadline: its answer is to come in time as well.
		w.asked++
		_ = w.nc.SetReadDeadline(time.Now().Add(w.timeout))
	}
	w.mu.Unlock()
	w.answers.StartResponse(turn)
	return turn, err
}

// answered notes that a request was answered, or never will be.
func (w *helpedWorker) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked--
}

// parsed ends the connection if an answer was not understood. A helperError was understood: it is an answer, and the
// connection goes on.
func (w *helpedWorker) parsed(err error) error {
	if _, sound := errors.AsType[*helperError](err); err != nil && !sound {
		return w.breakOff(err)
	}
	return err
}

func sendError(err error) error {
	if errors.Is(err, ErrGone) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrHelper, err)
}

// packets are buffers for answers.
var packets = sync.Pool{New: func() any { return new([maxPacket]byte) }}

// parse parses an answer into v. A session that is the same as before comes as one byte.
func (w *helpedWorker) parse(answer []byte, v any) error {
	s, isSession := v.(*Session)
	if !isSession {
		return parseAnswer(answer, v)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(answer) == 1 && answer[0] == answerSame && w.last != nil {
		*s = *w.last
		return nil
	}
	err := parseAnswer(answer, v)
	if err == nil {
		last := *s
		w.last = &last
	}
	return err
}

// receive receives one answer into b.
func (w *helpedWorker) receive(b []byte) ([]byte, error) {
	n, _, flags, _, err := w.nc.ReadMsgUnix(b, nil)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w has not answered within %v", ErrHelper, w.timeout)
	case errors.Is(err, io.EOF) || err == nil && n == 0 || errors.Is(err, syscall.ECONNRESET):
		return nil, fmt.Errorf("%w: %w", ErrHelper, errNoAnswer)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrHelper, err)
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return nil, fmt.Errorf("%w: its answer is too long", ErrHelper)
	}
	return b[:n], nil
}

// breakOff closes the connection for good, and returns why it was closed first.
func (w *helpedWorker) breakOff(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.breakOffLocked(err)
}

// breakOffLocked is breakOff for a caller that holds mu. The close wakes up whichever goroutine reads or writes.
func (w *helpedWorker) breakOffLocked(err error) error {
	if w.broken == nil {
		w.broken = err
		_ = w.nc.Close()
	}
	return w.broken
}
