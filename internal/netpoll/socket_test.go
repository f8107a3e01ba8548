package netpoll_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

func TestSocketCarriesAllBytesBothWays(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		server, client := netpolltest.Pair(t, network)
		sent := make([]byte, 4<<20)
		for i := range sent {
			sent[i] = byte(rand.Uint32())
		}
		echoed := make(chan error, 1)
		go func() {
			_, err := io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{server})
			echoed <- errors.Join(err, server.CloseWrite())
		}()
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(1+rand.IntN(1<<17), len(rest))
				_, _ = client.Write(rest[:n])
				rest = rest[n:]
			}
			_ = client.CloseWrite()
		}()
		got, err := io.ReadAll(client)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got %d bytes and %v, want %d bytes as they were sent", len(got), err, len(sent))
		}
		if err := netpolltest.Receive(t, "the end of the echo", echoed); err != nil {
			t.Error(err)
		}
	})
}

func TestSocketDeadlinesEndTheWait(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		server, client := netpolltest.Pair(t, network)
		flood := make([]byte, 8<<20) // more than any buffer on the way takes
		for name, use := range map[string]func() error{
			"read":     func() error { _, err := server.Read(make([]byte, 1)); return err },
			"write":    func() error { _, err := server.Write(flood); return err },
			"raw read": func() error { return rawRead(server, func(uintptr) bool { return false }) },
		} {
			for name, set := range map[string]func(){
				name + ", set before":    func() { _ = server.SetDeadline(time.Now().Add(20 * time.Millisecond)) },
				name + ", in the past":   func() { _ = server.SetDeadline(past) },
				name + ", set meanwhile": func() { go func() { _ = server.SetDeadline(time.Now().Add(20 * time.Millisecond)) }() },
				name + ", moved closer": func() {
					_ = server.SetDeadline(time.Now().Add(time.Hour))
					go func() { _ = server.SetDeadline(past) }()
				},
			} {
				_ = server.SetDeadline(time.Time{})
				set()
				if err := netpolltest.WaitFor(t, name, use); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: got %v, want a deadline that is exceeded", name, err)
				}
			}
		}
		_ = server.SetDeadline(time.Time{})
		go func() { _, _ = client.Write([]byte("x")) }()
		if n, err := server.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("without a deadline again: got %d and %v, want a byte", n, err)
		}
	})
}

// TestSocketDeadlinesLastAlthoughTheClockIsSet, be it forward or back: one that has passed ends the wait, and one that
// is still to come does not.
func TestSocketDeadlinesLastAlthoughTheClockIsSet(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		server, client := netpolltest.Pair(t, network)
		for _, step := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
			for name, use := range map[string]func() error{
				"read":     func() error { _, err := server.Read(make([]byte, 1)); return err },
				"raw read": func() error { return rawRead(server, func(uintptr) bool { return false }) },
			} {
				_ = server.SetDeadline(beforeStep(t, time.Now().Add(20*time.Millisecond), step))
				if err := netpolltest.WaitFor(t, name, use); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s, clock set by %v: got %v, want a deadline that is exceeded", name, step, err)
				}
			}
			_ = server.SetDeadline(beforeStep(t, time.Now().Add(time.Hour), step))
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			err := netpolltest.WaitFor(t, "read", func() error { _, err := server.Read(make([]byte, 1)); return err })
			if _, writeErr := server.Write([]byte("x")); err != nil || writeErr != nil {
				t.Errorf("clock set by %v: got %v and %v before the deadline, want no error", step, err, writeErr)
			}
		}
	})
}

// beforeStep returns the time that at was when the clock had not been set by step: its wall clock differs, and its
// monotonic reading does not.
func beforeStep(t *testing.T, at time.Time, step time.Duration) time.Time {
	t.Helper()
	before := at
	const nanoseconds = 30 // bits of time.Time's first word, below the seconds
	*(*uint64)(unsafe.Pointer(&before)) -= uint64(int64(step/time.Second)) << nanoseconds
	if before.Sub(at) != 0 || at.Round(0).Sub(before.Round(0)) != step {
		t.Fatalf("got %v of %v: time.Time is not as this test expects", before, at)
	}
	return before
}

func rawRead(nc net.Conn, ready func(uintptr) bool) error {
	raw, err := nc.(netpoll.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(ready)
}

func TestSocketCloseEndsAllThatWait(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		for range 20 {
			server, _ := netpolltest.Pair(t, network)
			errs := make(chan error, 2)
			go func() { _, err := server.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := server.Write(make([]byte, 8<<20)); errs <- err }()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
			if err := server.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			for range 2 {
				if err := netpolltest.Receive(t, "the end of a wait", errs); !errors.Is(err, net.ErrClosed) {
					t.Errorf("got %v, want net.ErrClosed", err)
				}
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read after the close: got %v, want net.ErrClosed", err)
			}
			if err := server.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("close again: got %v, want net.ErrClosed", err)
			}
		}
	})
}

// Each descriptor's number has one slot in the poller, which the sockets that get the number use one behind the other.
func TestSocketsThatShareADescriptorOneBehindTheOtherDoNotDisturbEachOther(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		l, err := netpoll.NewListener(netpolltest.Listen(t, network))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var served sync.WaitGroup
		defer served.Wait()
		defer l.Close()
		served.Go(func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				served.Go(func() { echoOnce(nc) })
			}
		})
		var clients sync.WaitGroup
		for c := range 8 {
			clients.Go(func() {
				for i := range 100 {
					if err := askOnce(l.Addr(), fmt.Sprintf("question %d of %d", i, c)); err != nil {
						t.Errorf("question %d of %d: %v", i, c, err)
						return
					}
				}
			})
		}
		clients.Wait()
	})
}

// echoOnce answers one message of 32 bytes, some of which it has to wait for, and closes.
func echoOnce(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetReadDeadline(time.Now().Add(netpolltest.Patience))
	b := make([]byte, 32)
	if _, err := io.ReadFull(nc, b); err != nil {
		return
	}
	_, _ = nc.Write(b)
}

func askOnce(a net.Addr, question string) error {
	nc, err := net.Dial(a.Network(), a.String())
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(netpolltest.Patience))
	message := fmt.Appendf(nil, "%-32s", question)
	for _, part := range [][]byte{message[:5], message[5:]} {
		if _, err := nc.Write(part); err != nil {
			return err
		}
	}
	answer, err := io.ReadAll(nc)
	if err == nil && !bytes.Equal(answer, message) {
		err = fmt.Errorf("got %q, want %q", answer, message)
	}
	return err
}

func TestListenerCloseEndsAccept(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		l, err := netpoll.NewListener(netpolltest.Listen(t, network))
		if err != nil {
			t.Fatal(err)
		}
		go l.Close()
		if err := netpolltest.WaitFor(t, "accept", func() error { _, err := l.Accept(); return err }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	})
}

func TestListenerDoesNotListenAfterClose(t *testing.T) {
	l, err := netpoll.NewListener(netpolltest.Listen(t, "tcp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("got a connection, want none: a descriptor of the socket is still open")
	}
}

func TestDialOfAUnixSocketThatCannotBe(t *testing.T) {
	for name, path := range map[string]string{
		"no path":         "",
		"a path too long": "/" + string(bytes.Repeat([]byte("x"), 200)),
		"no listener":     filepath.Join(t.TempDir(), "no-listener"),
	} {
		if s, err := netpoll.DialUnix(path); err == nil {
			s.Close()
			t.Errorf("%s: got a socket, want an error", name)
		}
	}
}

// past is a deadline in the past.
var past = time.Unix(1, 0)
