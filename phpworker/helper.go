package phpworker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
}

// Find asks the helper for the worker that has accepted conn.
func (h *Helper) Find(conn syscall.RawConn) (Worker, error) {
	nc, err := h.dial()
	if err != nil {
		return nil, err
	}
	w := &helpedWorker{nc: nc, timeout: h.Timeout}
	if w.timeout == 0 {
		w.timeout = defaultTimeout
	}
	if err := w.find(conn); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return w, nil
}

// Ready looks whether a helper listens, and for this process.
func (h *Helper) Ready() error {
	nc, err := h.dial()
	if err != nil {
		return err
	}
	return nc.Close()
}

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

	mu     sync.Mutex // one request at a time
	nc     *net.UnixConn
	broken error    // why nc is closed; nil while it is open
	last   *Session // that was answered last; nil: none was
}

func (w *helpedWorker) PID() int { return w.pid }

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
	w.pid = found.PID
	return err
}

func (w *helpedWorker) Session() (s Session, err error) {
	err = w.ask(requestSession, "", &s)
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
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakOff(errClosedHere)
	return nil
}

// ask sends a request and parses its answer into v.
func (w *helpedWorker) ask(request byte, id string, v any) error {
	return w.roundTrip(v, func() error {
		_, err := w.nc.Write(append([]byte{request}, id...))
		return err
	})
}

// roundTrip sends a request and parses its answer. An answer that does not come in time, or makes no sense, ends the
// connection: the next one would be taken for it.
func (w *helpedWorker) roundTrip(v any, send func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	_ = w.nc.SetDeadline(time.Now().Add(w.timeout))
	if err := send(); err != nil {
		return w.breakOff(sendError(err))
	}
	buffer := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buffer)
	answer, err := w.receive(buffer[:])
	if err != nil {
		return w.breakOff(err)
	}
	if err := w.parse(answer, v); err != nil {
		if _, sound := errors.AsType[*helperError](err); !sound {
			return w.breakOff(err)
		}
		return err
	}
	return nil
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
	if isSession && len(answer) == 1 && answer[0] == answerSame && w.last != nil {
		*s = *w.last
		return nil
	}
	err := parseAnswer(answer, v)
	if isSession && err == nil {
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

// breakOff closes the connection for good, and returns why.
func (w *helpedWorker) breakOff(err error) error {
	if w.broken == nil {
		w.broken = err
		_ = w.nc.Close()
	}
	return err
}
