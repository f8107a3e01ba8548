package phpworker

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// fakeWorker is a worker whose sessions a test sets.
type fakeWorker struct {
	sessions []Session
	asked    int
}

func (w *fakeWorker) Find(syscall.RawConn) (Worker, error) { return w, nil }
func (w *fakeWorker) Ready() error                         { return nil }
func (w *fakeWorker) PID() int                             { return 4711 }
func (w *fakeWorker) Activity() (Activity, error)          { return Activity{PID: 4711, State: "sleeping"}, nil }
func (w *fakeWorker) Interrupt(id string) error            { return &helperError{"not " + id, ErrSession} }
func (w *fakeWorker) Terminate(string) error               { return nil }
func (w *fakeWorker) Close() error                         { return nil }
func (w *fakeWorker) Await(context.Context, Session, time.Duration) error {
	return errors.ErrUnsupported
}
func (w *fakeWorker) Session() (Session, error) {
	if w.asked == len(w.sessions) {
		return Session{}, ErrGone
	}
	w.asked++
	return w.sessions[w.asked-1], nil
}

// served is a server in this process, with a connection that can be passed to it.
func served(t *testing.T, f Finder) (*Helper, syscall.RawConn) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Finder: f}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	raw, err := l.SyscallConn() // any descriptor will do
	if err != nil {
		t.Fatal(err)
	}
	return &Helper{Path: l.Addr().String()}, raw
}

func TestSessionsComeAsTheyAre(t *testing.T) {
	open := Session{Active, "abc", "PHPSESSID", "files", "/srv/cart.php", 7, Before}
	closed := open
	closed.Status = None
	want := []Session{{Status: None}, open, open, open, closed, closed, open}
	helper, raw := served(t, &fakeWorker{sessions: want})
	w, err := helper.Find(raw)
	if err != nil || w.PID() != 4711 {
		t.Fatalf("got %v, %v", w, err)
	}
	defer w.Close()
	for n, want := range want {
		if got, err := w.Session(); err != nil || got != want {
			t.Errorf("look %d: got %+v (%v), want %+v", n, got, err, want)
		}
		if a, err := w.Activity(); err != nil || a.State != "sleeping" {
			t.Errorf("got %+v, %v", a, err)
		}
	}
	if _, err := w.Session(); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
	if err := w.Interrupt("abc"); !errors.Is(err, ErrSession) || err.Error() != "not abc" {
		t.Errorf("got %v", err)
	}
	if err := w.Terminate(""); err != nil {
		t.Error(err)
	}
}

// TestAHelperThatLiesIsNotBelieved: whatever it sends, the worker says so, and asks it nothing more.
func TestAHelperThatLiesIsNotBelieved(t *testing.T) {
	for name, answers := range map[string][]string{
		"no process":                       {`+{"PID":0}`},
		"no JSON":                          {"+hello"},
		"another protocol":                 {"HTTP/1.1 200 OK"},
		"nothing":                          {""},
		"a session that is as none before": {`+{"PID":1}`, "="},
		"a status that does not exist":     {`+{"PID":1}`, `+{"Status":9}`},
		"more than a packet":               {`+{"PID":1}`, `+{"ID":"` + string(make([]byte, 2*maxPacket)) + `"}`},
		"an unknown reason":                {"-because it is so"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				nc, err := l.AcceptUnix()
				if err != nil {
					return
				}
				defer nc.Close()
				_ = nc.SetWriteBuffer(4 * maxPacket)
				for _, answer := range answers {
					if _, err := nc.Read(make([]byte, 64)); err != nil {
						return
					}
					_, _ = nc.Write([]byte(answer))
				}
			}()
			raw, err := l.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			w, err := (&Helper{Path: l.Addr().String()}).Find(raw)
			if err == nil {
				defer w.Close()
				_, err = w.Session()
			}
			if !errors.Is(err, ErrHelper) || !Temporary(err) {
				t.Errorf("got %v, want %v", err, ErrHelper)
			}
		})
	}
}
