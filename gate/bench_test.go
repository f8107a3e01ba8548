package gate

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// BenchmarkRequest takes small requests of a session each through a gate, one behind the other: from a client of
// its own, to an application of its own that answers at once. What it costs is largely the kernel's; allocations
// are the gate's, the client's and the application's.
func BenchmarkRequest(b *testing.B) {
	for _, keep := range []bool{false, true} {
		b.Run(fmt.Sprintf("keep=%v", keep), func(b *testing.B) {
			dir := b.TempDir()
			o := Options{
				Name:     "bench",
				Realm:    "bench",
				Upstream: fcgi.PoolOptions{Addrs: []netaddr.Addr{{Network: "unix", Address: filepath.Join(dir, "php")}}, ConnectTimeout: time.Second},
				Limits:   fcgi.Limits{MaxParams: 1 << 20, HeadTimeout: 10 * time.Second, IdleTimeout: time.Minute},
				Session:  phpsession.Rules{Cookies: []string{"PHPSESSID"}},
				Policy:   Policy{MaxWait: time.Second, Expiry: time.Minute, MaxWaiters: 10, Status: 503},

				SlowRequest: 5 * time.Second,
			}
			if keep {
				o.Upstream.Reuse, o.Upstream.Idle = time.Hour, time.Hour
			}
			application(b, filepath.Join(dir, "php"), keep)
			o.Locks = sessionlock.NewManager(sessionlock.NewLocal())
			g := New(o, hclog.NewNullLogger())
			l, err := net.Listen("unix", filepath.Join(dir, "gate"))
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = g.Serve(l) }()
			defer func() { _ = g.Shutdown(b.Context(), 0) }()
			sendAll(b, l.Addr(), keep)
		})
	}
}

// sendAll sends b.N requests, each with a session of its own.
func sendAll(b *testing.B, addr net.Addr, keep bool) {
	buf := make([]byte, 4096)
	answer := appendAnswer(nil, 1)
	var nc net.Conn
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if nc == nil {
			var err error
			if nc, err = net.Dial(addr.Network(), addr.String()); err != nil {
				b.Fatal(err)
			}
		}
		params := fcgi.AppendPair(nil, "REQUEST_METHOD", "GET")
		params = fcgi.AppendPair(params, "SCRIPT_NAME", "/index.php")
		params = fcgi.AppendPair(params, "HTTP_COOKIE", fmt.Sprintf("a=b; PHPSESSID=%026d", i))
		q := fcgi.AppendBeginRequest(buf[:0], 1, fcgi.RoleResponder, keep)
		q = fcgi.AppendRecord(q, fcgi.TypeParams, 1, params)
		q = fcgi.AppendRecord(q, fcgi.TypeParams, 1, nil)
		q = fcgi.AppendRecord(q, fcgi.TypeStdin, 1, nil)
		if _, err := nc.Write(q); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, buf[:len(answer)]); err != nil {
			b.Fatal(err)
		}
		if !keep {
			_ = nc.Close()
			nc = nil
		}
	}
	if nc != nil {
		_ = nc.Close()
	}
}

// appendAnswer appends what the application answers to every request.
func appendAnswer(b []byte, id uint16) []byte {
	b = fcgi.AppendRecord(b, fcgi.TypeStdout, id, []byte("Content-Type: text/plain\r\n\r\nhello"))
	return fcgi.AppendEndRequest(b, id, 0, fcgi.StatusRequestComplete)
}

// application serves requests that come with one read each.
func application(b *testing.B, path string, keep bool) {
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := nc.Read(buf); err != nil {
						return
					}
					answer := appendAnswer(nil, fcgi.ParseHeader(buf).RequestID) // each request of a connection has its own
					if _, err := nc.Write(answer); err != nil || !keep {
						return
					}
				}
			}()
		}
	}()
}
