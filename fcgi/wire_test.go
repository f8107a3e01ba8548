package fcgi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

// There is no web server here that would have to be given time.
func init() { truncatePause = 0 }

// A busy machine's worker takes its time to come back.
func init() { idleWait = 100 * time.Millisecond }

// Web servers here do not close a conn by themselves.
func init() { closeTimeout = 500 * time.Millisecond }

const patience = netpolltest.Patience

var (
	await   = netpolltest.Await
	both    = netpolltest.Both
	listen  = netpolltest.Listen
	waitFor = netpolltest.WaitFor
)

// receive takes a value that must come.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	return netpolltest.Receive(t, what, from)
}

// joined puts records together.
func joined(records ...[]byte) []byte { return bytes.Join(records, nil) }

// padded is a record with n bytes of padding that are not zero.
func padded(t RecordType, id uint16, content string, n int) []byte {
	b := AppendRecord(nil, t, id, []byte(content))
	b[6] = byte(n)
	return append(b, bytes.Repeat([]byte{0xee}, n)...)
}

// paramsOf are the records of a params stream, with its end. Names and values take turns.
func paramsOf(id uint16, pairs ...string) []byte {
	return AppendRecord(AppendStream(nil, TypeParams, id, pairsOf(pairs...)), TypeParams, id, nil)
}

func pairsOf(pairs ...string) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = AppendPair(b, pairs[i], pairs[i+1])
	}
	return b
}

// stdinOf are the records of a stdin stream, with its end.
func stdinOf(id uint16, body string) []byte {
	return AppendRecord(AppendStream(nil, TypeStdin, id, []byte(body)), TypeStdin, id, nil)
}

// requestOf are the records of a whole request.
func requestOf(id uint16, keepConn bool, body string, pairs ...string) []byte {
	return joined(AppendBeginRequest(nil, id, RoleResponder, keepConn), paramsOf(id, pairs...), stdinOf(id, body))
}

// peer is the other side of a connection, which reads whole records.
type peer struct {
	net.Conn
	t testing.TB
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &peer{nc, t}
}

func (p *peer) send(records ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(joined(records...)); err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// record returns the next record. A connection that ends before it ends the test.
func (p *peer) record() (Header, []byte) {
	p.t.Helper()
	h, content, err := readRecord(p)
	if err != nil {
		p.t.Fatalf("read record: %v", err)
	}
	return h, content
}

func readRecord(r io.Reader) (Header, []byte, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Header{}, nil, err
	}
	h := ParseHeader(head[:])
	if h.Version != version {
		return h, nil, fmt.Errorf("version %d", h.Version)
	}
	content := make([]byte, h.ContentLength+h.PaddingLength)
	if _, err := io.ReadFull(r, content); err != nil {
		return h, nil, fmt.Errorf("in a record: %w", err)
	}
	return h, content[:h.ContentLength], nil
}

// response is what a web server gets.
type response struct {
	stdout, stderr string
	appStatus      uint32
	status         ProtocolStatus
	managed        []Header // management records, and ends of other requests
}

// response reads until the end request of id. A connection that ends before it ends the test.
func (p *peer) response(id uint16) response {
	p.t.Helper()
	r, err := readResponse(p, id)
	if err != nil {
		p.t.Fatalf("read response: %v, after %q", err, r.stdout)
	}
	return r
}

func readResponse(from io.Reader, id uint16) (r response, err error) {
	for {
		h, content, err := readRecord(from)
		switch {
		case err != nil:
			return r, err
		case h.RequestID != id:
			r.managed = append(r.managed, h)
		case h.Type == TypeStdout:
			r.stdout += string(content)
		case h.Type == TypeStderr:
			r.stderr += string(content)
		case h.Type == TypeEndRequest:
			r.appStatus = binary.BigEndian.Uint32(content)
			r.status = ProtocolStatus(content[4])
			return r, nil
		default:
			return r, fmt.Errorf("record of type %d", h.Type)
		}
	}
}

// atEnd checks that nothing more comes, and how the connection ends: cleanly, not by a reset.
func (p *peer) atEnd() {
	p.t.Helper()
	if rest, err := io.ReadAll(p); err != nil || len(rest) > 0 {
		p.t.Errorf("got %q and %v, want a clean end", rest, err)
	}
}

// memory is a conn of no network: it is read in the pieces that it is given, and keeps what is written.
type memory struct {
	netpoll.Conn
	pieces  [][]byte
	written bytes.Buffer
	closed  bool
}

func (m *memory) Read(b []byte) (int, error) {
	for len(m.pieces) > 0 && len(m.pieces[0]) == 0 {
		m.pieces = m.pieces[1:]
	}
	if len(m.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, m.pieces[0])
	m.pieces[0] = m.pieces[0][n:]
	return n, nil
}

func (m *memory) Write(b []byte) (int, error)      { return m.written.Write(b) }
func (m *memory) Close() error                     { m.closed = true; return nil }
func (m *memory) CloseRead() error                 { return nil }
func (m *memory) CloseWrite() error                { return nil }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }

// cutAt returns b in pieces, each as long as the next of lengths says, and the rest in one.
func cutAt(b []byte, lengths []byte) [][]byte {
	var pieces [][]byte
	for _, n := range lengths {
		n := min(int(n)+1, len(b))
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return append(pieces, b[:len(b):len(b)])
}

// everyCut calls test with b cut in two at every byte, and with b in single bytes.
func everyCut(b []byte, test func(name string, pieces [][]byte)) {
	for i := range len(b) + 1 {
		test(fmt.Sprintf("cut at %d", i), [][]byte{b[:i:i], b[i:]})
	}
	test("in single bytes", cutAt(b, make([]byte, len(b))))
}
