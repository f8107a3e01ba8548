package phpfpm

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// fpm is a real PHP-FPM.
type fpm struct {
	*rig.PHPFPM
	t    *testing.T
	root string // of its scripts
}

func startFPM(t *testing.T, network string, o rig.PHPOptions) *fpm {
	t.Helper()
	r := rigtest.New(t, "php-fpm")
	o.Listen = rig.Addr{Network: network}
	return &fpm{rigtest.Start(t, r.PHPFPM, o), t, r.DocRoot}
}

// statusAddr returns where the rig's PHP-FPM shows its status: a socket of its own, next to that of its scripts.
func (f *fpm) statusAddr() netaddr.Addr {
	return netaddr.Addr{Network: "unix", Address: strings.Replace(f.Addr.Address, ".sock", "-status.sock", 1)}
}

func (f *fpm) dial() net.Conn {
	f.t.Helper()
	nc, err := net.Dial(f.Addr.Network, f.Addr.Address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(netpolltest.Patience))
	return nc
}

// get is a request for a script.
func (f *fpm) get(keep bool, script, query string) []byte {
	var params []byte
	for _, p := range [][2]string{
		{"SCRIPT_FILENAME", filepath.Join(f.root, script)}, {"SCRIPT_NAME", "/" + script}, {"REQUEST_METHOD", "GET"},
		{"QUERY_STRING", query},
	} {
		params = append(params, byte(len(p[0])), 0x80, 0, 0, byte(len(p[1]))) // the second length in four bytes
		params = append(params, p[0]+p[1]...)
	}
	b := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, keep)
	b = fcgi.AppendStream(b, fcgi.TypeParams, 1, params)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, nil)
	return fcgi.AppendRecord(b, fcgi.TypeStdin, 1, nil)
}

// run has PHP run a script, and reads its response.
func (f *fpm) run(nc net.Conn, keep bool, script, query string) {
	f.t.Helper()
	send(nc, f.get(keep, script, query))
	for {
		h, err := readRecord(nc)
		if err != nil {
			f.t.Fatal(err)
		}
		if h.Type == fcgi.TypeEndRequest {
			return
		}
	}
}

// startPHP listens as PHP-FPM does, and has serve do with each connection what PHP-FPM could not be made to do. The
// connections are closed when serve returns, and when the test ends.
func startPHP(t testing.TB, network string, serve func(net.Conn)) netaddr.Addr {
	t.Helper()
	l := netpolltest.Listen(t, network)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(netpolltest.Patience))
				serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return netaddr.Addr{Network: network, Address: l.Addr().String()}
}

// noListener returns an address where nothing listens.
func noListener(t testing.TB) netaddr.Addr {
	return netaddr.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "no-listener")}
}

// pageOf serves every request of a connection the same response.
func pageOf(response string) func(net.Conn) {
	return func(nc net.Conn) {
		for {
			id, err := readRequest(nc)
			if err != nil {
				return
			}
			send(nc, answerOf(id, response))
		}
	}
}

// readRequest reads a request without a body, and returns its id.
func readRequest(nc net.Conn) (id uint16, err error) {
	for {
		h, err := readRecord(nc)
		if err != nil || h.Type == fcgi.TypeStdin {
			return h.RequestID, err
		}
	}
}

func readRecord(nc net.Conn) (h fcgi.Header, err error) {
	var b [8]byte
	if _, err := io.ReadFull(nc, b[:]); err != nil {
		return h, err
	}
	h = fcgi.ParseHeader(b[:])
	_, err = io.CopyN(io.Discard, nc, int64(h.ContentLength+h.PaddingLength))
	return h, err
}

// answerOf is a whole response.
func answerOf(id uint16, stdout string) []byte {
	b := fcgi.AppendStream(nil, fcgi.TypeStdout, id, []byte(stdout))
	return fcgi.AppendEndRequest(b, id, 0, fcgi.StatusRequestComplete)
}

func send(nc net.Conn, records ...[]byte) {
	for _, r := range records {
		_, _ = nc.Write(r)
	}
}

// awaitEnd reads until the peer closes.
func awaitEnd(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }

// openFiles is how many files and sockets the test has open.
func openFiles(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
