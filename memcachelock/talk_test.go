package memcachelock_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// deadline is there so that a failure ends. Nothing takes as long.
const deadline = 30 * time.Second

// talk is a connection to a memcached in its own words, so that what it does is seen without the package or
// gomemcache in between.
type talk struct {
	testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func talkTo(t testing.TB, s *rig.Server) *talk {
	t.Helper()
	nc, err := net.Dial(s.Addr.Network, s.Addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &talk{t, nc, bufio.NewReader(nc)}
}

// ask sends a command and returns the first line of the answer.
func (c *talk) ask(format string, args ...any) string {
	c.Helper()
	_ = c.nc.SetDeadline(time.Now().Add(deadline))
	fmt.Fprintf(c.nc, format+"\r\n", args...)
	return c.line()
}

func (c *talk) line() string {
	c.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.Fatalf("read from memcached: %v", err)
	}
	return strings.TrimRight(line, "\r\n")
}

// get returns the value and CAS id of an item, or "" and "" if there is none.
func (c *talk) get(command, name string) (value, casID string) {
	c.Helper()
	head := c.ask("%s %s", command, name)
	if head == "END" {
		return "", ""
	}
	words := strings.Fields(head)
	if len(words) < 4 {
		c.Fatalf("%s: got %q", command, head)
	}
	if len(words) > 4 {
		casID = words[4]
	}
	value = c.line()
	if end := c.line(); end != "END" {
		c.Fatalf("%s: got %q, want END", command, end)
	}
	return value, casID
}

func (c *talk) want(got, want string) {
	c.Helper()
	if got != want {
		c.Errorf("got %q, want %q", got, want)
	}
}

// remove makes servers forget a lock, as an eviction does.
func (f *fleet) remove(t testing.TB, key sessionlock.Key, servers ...*rig.Server) {
	t.Helper()
	for _, s := range servers {
		talkTo(t, s).ask("delete %s", lockName(key))
	}
}

func lockName(key sessionlock.Key) string { return memcachelock.DefaultPrefix + key.String() }

func newKey(t testing.TB) sessionlock.Key {
	return sessionlock.KeyFor(nil, t.Name(), []byte(rand.Text()))
}

// lockSoon acquires what can be had when the server is back and its grace is over.
func lockSoon(t testing.TB, m *sessionlock.Manager, key sessionlock.Key) *sessionlock.Lock {
	t.Helper()
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var l *sessionlock.Lock
		l, err = m.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: deadline})
		if err == nil {
			return l
		}
		if !errors.Is(err, sessionlock.ErrStore) {
			break
		}
	}
	t.Fatalf("acquire: %v", err)
	return nil
}

func wantStoreError(t testing.TB, m *sessionlock.Manager, key sessionlock.Key) {
	t.Helper()
	l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: deadline})
	if err == nil {
		l.Release()
	}
	if !errors.Is(err, sessionlock.ErrStore) {
		t.Errorf("got error %v, want ErrStore", err)
	}
}

// eventually waits until something is so that takes its time.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never saw that %s", what)
		}
	}
}

// freeze stops a server, and waits until it has: a signal takes its time to reach all threads.
func freeze(t *testing.T, s *rig.Server) {
	t.Helper()
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all threads are stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.Pid()))
		if err != nil || len(threads) == 0 {
			t.Fatalf("no threads of %s: %v", s.Name, err)
		}
		return !slices.ContainsFunc(threads, func(stat string) bool {
			b, err := os.ReadFile(stat)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
}

func thaw(t *testing.T, s *rig.Server) {
	t.Helper()
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
}

// restart starts a server again, whether it runs or not.
func restart(t *testing.T, s *rig.Server) {
	t.Helper()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
}
