package phpworker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers Helpers. It looks only at the worker that serves a connection which the asking process has, and ends
// no other. What it answers are states, ids of sessions and processes, names and lines, never memory as such.
type Server struct {
	Finder   Finder // what finds the workers, such as a Local
	MaxConns int    // more connections are closed at once; 4096 if zero
	// Failed is called with each request that failed for a reason that an operator has to see to; nil: it is not. It
	// may be called concurrently.
	Failed func(err error)

	mu     sync.Mutex
	conns  map[*net.UnixConn]struct{}
	closed bool
	served sync.WaitGroup
}

// defaultMaxConns is how many workers may be looked at at once, of all gates of a host.
const defaultMaxConns = 4096

// Serve accepts connections from l, which must be a listener of network unixpacket, until Close. Then it returns nil.
func (s *Server) Serve(l *net.UnixListener) error {
	pause := time.Duration(0)
	for {
		nc, err := l.AcceptUnix()
		switch {
		case err == nil:
			pause = 0
			s.begin(nc)
		case s.isClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // such as a want of descriptors
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
		}
	}
}

// begin serves a connection in the background, or closes it if there are too many.
func (s *Server) begin(nc *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.MaxConns
	if most == 0 {
		most = defaultMaxConns
	}
	if s.closed || len(s.conns) >= most {
		_ = nc.Close()
		return
	}
	if s.conns == nil {
		s.conns = make(map[*net.UnixConn]struct{})
	}
	s.conns[nc] = struct{}{}
	s.served.Go(func() {
		defer s.end(nc)
		s.serve(nc)
	})
}

func (s *Server) end(nc *net.UnixConn) {
	_ = nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, nc)
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close closes all connections and waits until nothing is served any longer: a process that is stopped to be looked at
// goes on. The listeners are the caller's to close, after Close has begun or before.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for nc := range s.conns {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

// findTimeout bounds the wait for the first request of a connection, which comes at once.
const findTimeout = 5 * time.Second

// serve answers the requests of one connection, which are about one worker.
func (s *Server) serve(nc *net.UnixConn) {
	_ = nc.SetReadDeadline(time.Now().Add(findTimeout))
	// A longer packet is cut. What is left of its id is still longer than maxID, and matches no session.
	b := make([]byte, 2+maxID)
	w, err := s.find(nc, b)
	if errors.Is(err, errOnlyReady) {
		_, _ = nc.Write(appendAnswer(nil, struct{}{}, s.Finder.Ready()))
		return
	}
	if err != nil {
		s.report(err)
		_, _ = nc.Write(appendError(nil, err))
		return
	}
	defer w.Close()
	_ = nc.SetReadDeadline(time.Time{})
	c := &servedWorker{server: s, nc: nc, worker: w, rest: func() {}}
	defer func() { c.rest() }()
	err = c.write(appendAnswer(nil, foundAnswer{PID: w.PID(), Awaits: true}, nil))
	for err == nil {
		n, readErr := nc.Read(b)
		c.rest() // its answer comes first
		if readErr != nil || n == 0 {
			return
		}
		err = c.answer(b[0], string(b[1:n]))
	}
}

// servedWorker is the worker of one connection. Its fields have no mutex: rest waits for the goroutine that answers
// requestAwait before any other request is answered.
type servedWorker struct {
	server *Server
	nc     *net.UnixConn
	worker Worker
	last   *Session // that was answered; nil: none was
	packet []byte
	rest   func() // ends the answering of requestAwait, which is done in the background
}

// answer answers one request. It returns an error if the connection has ended.
func (c *servedWorker) answer(request byte, argument string) error {
	switch request {
	case requestAwait:
		c.await(argument)
		return nil
	case requestRest:
		return nil
	}
	v, err := c.do(request, argument)
	c.server.report(err)
	c.packet = c.packet[:0]
	if s, ok := v.(Session); ok && err == nil {
		if c.last != nil && *c.last == s {
			return c.write(append(c.packet, answerSame))
		}
		c.last = &s
	}
	return c.write(appendAnswer(c.packet, v, err))
}

func (c *servedWorker) write(answer []byte) error {
	c.packet = answer
	_ = c.nc.SetWriteDeadline(time.Now().Add(findTimeout))
	_, err := c.nc.Write(answer)
	return err
}

// await answers requestAwait in the background, at the latest when c.rest is called.
func (c *servedWorker) await(argument string) {
	pause, err := strconv.ParseUint(argument, 10, 16)
	ctx, cancel := context.WithCancel(context.Background())
	var answering sync.WaitGroup
	c.rest = func() {
		cancel()
		answering.Wait()
	}
	answering.Go(func() {
		switch {
		case err != nil:
			err = errOtherVersion
		case c.last == nil: // it is not as seen
		default:
			err = c.worker.Await(ctx, *c.last, time.Duration(pause)*time.Millisecond)
		}
		if errors.Is(err, context.Canceled) {
			_ = c.write([]byte{answerSame})
			return
		}
		c.server.report(err)
		_ = c.write(appendAnswer(c.packet[:0], struct{}{}, err))
	})
}

// report calls Failed with what does not end by itself.
func (s *Server) report(err error) {
	if err != nil && s.Failed != nil && !Temporary(err) {
		s.Failed(err)
	}
}

func appendAnswer(b []byte, v any, err error) []byte {
	if err != nil {
		return appendError(b, err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return appendError(b, err) // never: they are plain structs
	}
	return append(append(b, answerOK), text...)
}

// do does what a request asks.
func (c *servedWorker) do(request byte, id string) (any, error) {
	w := c.worker
	switch request {
	case requestSession:
		return w.Session()
	case requestActivity:
		return w.Activity()
	case requestInterrupt:
		return struct{}{}, w.Interrupt(id)
	case requestTerminate:
		return struct{}{}, w.Terminate(id)
	}
	return nil, errOtherVersion
}

// errOtherVersion is returned for a request that is not known.
var errOtherVersion = fmt.Errorf("%w does not know this request: gate and helper have different versions; restart both",
	ErrHelper)

// errOnlyReady is returned for a first request that checks the helper itself, and names no worker.
var errOnlyReady = errors.New("a check of the helper names no worker")

// find receives a connection and finds its worker. The connection is closed as soon as its other end is known: as long
// as it is open here, PHP-FPM does not notice that the gate has closed it.
func (s *Server) find(nc *net.UnixConn, b []byte) (Worker, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxPassed))
	n, oobn, flags, _, err := nc.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	fds, err := passed(oob[:oobn])
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrHelper, err)
	case n == 0:
		return nil, fmt.Errorf("%w: %w", ErrGone, io.EOF)
	case string(b[:n]) == string(rune(requestReady)):
		return nil, errOnlyReady
	case string(b[:n]) != string(rune(requestFind))+protocolVersion:
		return nil, errOtherVersion
	case len(fds) != 1 || flags&unix.MSG_CTRUNC != 0:
		return nil, fmt.Errorf("%w takes the upstream connection with the first request, and got %d descriptors",
			ErrHelper, len(fds))
	}
	return s.Finder.Find(rawFD(fds[0]))
}

// maxPassed is how many descriptors are received, so as to close them; the kernel closes more.
const maxPassed = 8

// passed returns the descriptors of a message's control part.
func passed(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // another kind of message
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// rawFD is a descriptor as a syscall.RawConn that can only be looked at.
type rawFD int

var _ syscall.RawConn = rawFD(0)

func (fd rawFD) Control(f func(fd uintptr)) error {
	f(uintptr(fd))
	return nil
}

func (rawFD) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (rawFD) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }
