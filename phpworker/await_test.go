package phpworker

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// changingWorker is a worker whose session a test changes.
type changingWorker struct {
	fakeWorker

	mu      sync.Mutex
	session Session
	looks   int // by Session
	ready   error
	changed chan struct{} // closed with each change
	awaits  chan Session  // what is awaited to change
}

func newChangingWorker() *changingWorker {
	return &changingWorker{changed: make(chan struct{}), awaits: make(chan Session, 9), session: Session{Status: Active, ID: "abc"}}
}

func (w *changingWorker) Find(syscall.RawConn) (Worker, error) { return w, nil }

func (w *changingWorker) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}

func (w *changingWorker) Session() (Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	return w.session, nil
}

func (w *changingWorker) Await(ctx context.Context, seen Session, _ time.Duration) error {
	w.mu.Lock()
	now, changed := w.session, w.changed
	w.mu.Unlock()
	w.awaits <- seen
	if now != seen {
		return nil
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *changingWorker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session.Status = None
	close(w.changed)
	w.changed = make(chan struct{})
}

// awaiting has a helper await a change of its worker's session, and returns once it does, with what comes of it.
func awaiting(t *testing.T, ctx context.Context) (*changingWorker, Worker, <-chan error) {
	t.Helper()
	changing := newChangingWorker()
	helper, raw := served(t, changing)
	w, err := helper.Find(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	seen, err := w.Session()
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- w.Await(ctx, seen, 30*time.Millisecond) }()
	if got := <-changing.awaits; got != seen {
		t.Errorf("%+v is awaited to change, want %+v", got, seen)
	}
	return changing, w, result
}

// TestAHelperAwaitsAChange without a request of the gate in the meantime.
func TestAHelperAwaitsAChange(t *testing.T) {
	changing, w, result := awaiting(t, t.Context())
	changing.close()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if s, err := w.Session(); err != nil || s.Status != None {
		t.Errorf("got %+v, %v", s, err)
	}
	changing.mu.Lock()
	defer changing.mu.Unlock()
	if changing.looks != 2 {
		t.Errorf("it was asked for the session %d times, want 2", changing.looks)
	}
}

// TestAnotherRequestEndsAnAwait, and both are answered.
func TestAnotherRequestEndsAnAwait(t *testing.T) {
	for name, request := range map[string]func(Worker) error{
		"session":   func(w Worker) error { _, err := w.Session(); return err },
		"activity":  func(w Worker) error { _, err := w.Activity(); return err },
		"terminate": func(w Worker) error { return w.Terminate("abc") },
		"interrupt": func(w Worker) error {
			if err := w.Interrupt("x"); !errors.Is(err, ErrSession) {
				return errors.Join(errors.New("it is not refused"), err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			changing, w, result := awaiting(t, t.Context())
			var asked sync.WaitGroup
			for range 5 {
				asked.Go(func() {
					if err := request(w); err != nil {
						t.Error(err)
					}
				})
			}
			asked.Wait()
			if err := <-result; err != nil {
				t.Error(err)
			}
			changing.close()
			if s, err := w.Session(); err != nil || s.Status != None {
				t.Errorf("after that: got %+v, %v", s, err)
			}
		})
	}
}

// TestAnAwaitEnds with its context, with the worker, with the helper, and where what was seen is not the latest.
func TestAnAwaitEnds(t *testing.T) {
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, w, result := awaiting(t, ctx)
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if s, err := w.Session(); err != nil || s.Status != Active {
			t.Errorf("after that: got %+v, %v", s, err)
		}
	})
	t.Run("context, after longer than an answer may take", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), defaultTimeout+100*time.Millisecond)
		defer cancel()
		_, w, result := awaiting(t, ctx)
		if err := <-result; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if s, err := w.Session(); err != nil || s.Status != Active {
			t.Errorf("after that: got %+v, %v", s, err)
		}
	})
	t.Run("worker", func(t *testing.T) {
		_, w, result := awaiting(t, t.Context())
		w.Close()
		if err := <-result; !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not the latest", func(t *testing.T) {
		changing, w, result := awaiting(t, t.Context())
		changing.close()
		<-result
		seen := Session{Status: Active, ID: "abc"}
		if _, err := w.Session(); err != nil {
			t.Fatal(err)
		}
		if err := w.Await(t.Context(), seen, 0); err != nil {
			t.Error(err)
		}
	})
}

// scripted is a helper that gives the same answer to all requests of a kind, and none to the others.
func scripted(t *testing.T, answers map[byte]string) (*Helper, syscall.RawConn) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				b := make([]byte, 64)
				for {
					if n, err := nc.Read(b); err != nil || n == 0 {
						return
					}
					if answer := answers[b[0]]; answer != "" {
						_, _ = nc.Write([]byte(answer))
					}
				}
			}()
		}
	}()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &Helper{Path: l.Addr().String(), Timeout: 50 * time.Millisecond}, raw
}

// TestAHelperOfAnEarlierVersionIsAsked again and again: it does not say that it awaits changes.
func TestAHelperOfAnEarlierVersionIsAsked(t *testing.T) {
	helper, raw := scripted(t, map[byte]string{requestFind: `+{"PID":1}`, requestSession: `+{"Status":3,"ID":"abc"}`})
	w, err := helper.Find(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Await(t.Context(), Session{Status: Unknown}, 0); err != nil {
		t.Errorf("a change: got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.Await(ctx, Session{Status: Active, ID: "abc"}, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no change: got %v", err)
	}
	if err := helper.Ready(); err == nil || !errors.Is(err, ErrHelper) {
		t.Errorf("one that does not answer is ready: got %v", err)
	}
}

// TestAHelperThatLiesWhileItAwaits, or says nothing once it is to answer, is not asked again.
func TestAHelperThatLiesWhileItAwaits(t *testing.T) {
	for name, answer := range map[string]string{"nonsense": "HTTP", "an unknown reason": "-because", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			helper, raw := scripted(t, map[byte]string{
				requestFind: `+{"PID":1,"Awaits":true}`, requestSession: `+{"Status":3}`, requestAwait: answer,
			})
			w, err := helper.Find(raw)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			seen, err := w.Session()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			err = w.Await(ctx, seen, 0)
			if _, again := w.Session(); !errors.Is(err, ErrHelper) || !errors.Is(again, ErrHelper) {
				t.Errorf("got %v, and after that %v, want %v", err, again, ErrHelper)
			}
		})
	}
}

// TestAHelperReportsMissingRights from the start, before any worker is found. An earlier version counts as ready.
func TestAHelperReportsMissingRights(t *testing.T) {
	changing := newChangingWorker()
	helper, _ := served(t, changing)
	if err := helper.Ready(); err != nil {
		t.Errorf("with all rights: got %v", err)
	}
	changing.mu.Lock()
	changing.ready = missingRights([]byte("CapEff:\t0000000000000020\n"))
	changing.mu.Unlock()
	err := helper.Ready()
	if !errors.Is(err, ErrRights) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") ||
		!strings.HasPrefix(err.Error(), ErrHelper.Error()) {
		t.Errorf("without one: got %v", err)
	}
	helper, _ = scripted(t, map[byte]string{requestReady: string(appendError(nil, errOtherVersion))})
	if err := helper.Ready(); err != nil {
		t.Errorf("of an earlier version: got %v", err)
	}
}
