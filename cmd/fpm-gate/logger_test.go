package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// testLogger logs to w.
func testLogger(w io.Writer, json bool) *logger {
	asJSON := new(atomic.Bool)
	asJSON.Store(json)
	return &logger{hclog.New(loggerOptions(w, hclog.Trace, false)), hclog.New(loggerOptions(w, hclog.Trace, true)), asJSON}
}

// A visitor chooses paths, and so what is in a value.
func TestAValueNeverMakesASecondLine(t *testing.T) {
	const evil = "/a\n<3>2026-01-01 [ERROR] fpm-gate: all is lost\r\x1b[2K\u2028.php"
	for name, value := range map[string]any{
		"a string": evil, "an error": errors.New(evil), "a wrapped error": fmt.Errorf("read: %w", errors.New(evil)),
		"joined errors": errors.Join(errors.New("one"), errors.New("two")), "a Stringer": stringer(evil), "bytes": []byte(evil),
		"a list": []string{evil, evil}, "only a newline": "\n",
	} {
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			l := testLogger(&out, asJSON)
			for _, log := range []hclog.Logger{l, l.Named("www"), l.With("script", value), l.ResetNamed("other")} {
				out.Reset()
				log.Warn("message", "path", value, "status", 503)
				text := out.String()
				if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") || strings.ContainsAny(text, "\r\x1b") {
					t.Errorf("%s, JSON %v: got %q, want one line", name, asJSON, text)
				}
				if asJSON && !json.Valid(out.Bytes()) {
					t.Errorf("%s: got %q, want JSON", name, text)
				}
				if !strings.Contains(text, "503") {
					t.Errorf("%s: got %q, want the pair after it too", name, text)
				}
			}
			out.Reset()
			l.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}).Print(evil)
			if text := out.String(); strings.Count(text, "\n") != 1 {
				t.Errorf("standard logger: got %q, want one line", text)
			}
		}
	}
}

func TestJSONShowsAddressesAsText(t *testing.T) {
	at := netaddr.Addr{Network: "unix", Address: "/run/www.sock"}
	since := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	log := testLogger(&out, true)
	log.SetLevel(hclog.Info)
	log.Debug("unseen", "listen", at)
	log.With("listen", at).Info("seen", "upstreams", []netaddr.Addr{at}, "since", since, "status", 503)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("got %q: %v", out.String(), err)
	}
	for key, want := range map[string]string{
		"listen": "unix:/run/www.sock", "upstreams": "[unix:/run/www.sock]", "since": "2026-11-26T12:00:00Z", "status": "503",
	} {
		if got := fmt.Sprint(line[key]); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

type stringer string

func (s stringer) String() string { return string(s) }

func TestTheSinkLosesLinesAndNeverWaits(t *testing.T) {
	w := &stuckWriter{stuck: make(chan struct{})}
	s := newLogSink(w)
	recovered := make(chan uint64, 1)
	s.recovered = func(lines uint64) { recovered <- lines }
	for range 3 * sinkLines { // one is being written, as many as it holds wait
		_, _ = s.Write([]byte("line\n"))
	}
	if lost := s.lost.Load(); lost < sinkLines || lost > 2*sinkLines || !s.failing.Load() {
		t.Errorf("got %d lines lost and failing %v, want about %d and true", lost, s.failing.Load(), 2*sinkLines)
	}
	want := s.lost.Load()
	close(w.stuck)
	s.flush()
	if got := <-recovered; got != want || s.failing.Load() {
		t.Errorf("got %d lines reported and failing %v, want %d and false", got, s.failing.Load(), want)
	}
	if got := w.lines(); uint64(got) != 3*sinkLines-want {
		t.Errorf("got %d lines, want %d", got, 3*sinkLines-want)
	}
}

// A disk that is full takes a part of a line. What is written when it has room again begins a line of its own.
func TestALineIsWrittenWholeAfterOneThatWasCut(t *testing.T) {
	const line = "line"
	for room := range 2 * len(line+"\n") {
		d := &fullDisk{}
		s := newLogSink(d)
		for _, more := range []int{room, room, 100} {
			d.free(more)
			for range 3 {
				_, _ = s.Write([]byte(line + "\n"))
			}
			s.flush()
		}
		text, whole := strings.CutSuffix(d.String(), "\n"+line+"\n")
		for l := range strings.SplitSeq(text, "\n") {
			whole = whole && strings.HasPrefix(line, l)
		}
		if !whole {
			t.Errorf("room for %d bytes: got %q, want whole lines, and parts of lines by themselves", room, d.String())
		}
	}
}

// fullDisk writes until there is no more room.
type fullDisk struct {
	mu   sync.Mutex
	b    strings.Builder
	room int
}

func (d *fullDisk) free(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room += room
}

func (d *fullDisk) Write(text []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n = min(d.room, len(text)); n < len(text) {
		err = syscall.ENOSPC
	}
	d.room -= n
	d.b.Write(text[:n])
	return n, err
}

func (d *fullDisk) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.String()
}

// stuckWriter blocks writes until it is released.
type stuckWriter struct {
	stuck chan struct{}
	mu    sync.Mutex
	n     int
}

func (w *stuckWriter) Write(text []byte) (int, error) {
	<-w.stuck
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return len(text), nil
}

func (w *stuckWriter) lines() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
