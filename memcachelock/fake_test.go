package memcachelock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fakeServer is a memcached in the process: its commands, its clock that ticks once a second, and what may happen to
// it. It is for tests in a synctest bubble, where time costs nothing.
type fakeServer struct {
	latency time.Duration // of one answer

	mu      sync.Mutex
	started time.Time
	items   map[string]fakeItem
	casID   uint64
	conns   map[net.Conn]struct{}
	down    bool
	killed  int           // times
	thawed  chan struct{} // nil: it is not frozen
	cut     map[int]bool  // gates that it does not hear
	lose    int           // answers
}

type fakeItem struct {
	value string
	casID uint64
	until int64 // by its clock; 0: for ever
}

func newFakeServer(latency time.Duration) *fakeServer {
	return &fakeServer{
		latency: latency,
		started: time.Now(),
		items:   make(map[string]fakeItem),
		conns:   make(map[net.Conn]struct{}),
		cut:     make(map[int]bool),
	}
}

// dial connects a gate. That of a gate that is cut off hangs until its context is done.
func (f *fakeServer) dial(ctx context.Context, gate int) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut[gate] {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	if f.down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	f.conns[far] = struct{}{}
	go f.serve(far, gate, f.killed)
	return near, nil
}

func (f *fakeServer) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
	f.killed++
	clear(f.items)
	for nc := range f.conns {
		nc.Close()
	}
}

func (f *fakeServer) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		f.down, f.started = false, time.Now()
	}
}

func (f *fakeServer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.thawed == nil {
		f.thawed = make(chan struct{})
	}
}

func (f *fakeServer) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.thawed != nil {
		close(f.thawed)
		f.thawed = nil
	}
}

func (f *fakeServer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// locks are the items that do not live for ever, the notes of hosts aside.
func (f *fakeServer) locks() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, item := range f.items {
		if _, ok := f.live(name); ok && item.until != 0 && !strings.HasSuffix(name, ":fleet") {
			names = append(names, name)
		}
	}
	return names
}

func (f *fakeServer) clock() int64 { return int64(time.Since(f.started) / time.Second) }

func (f *fakeServer) live(name string) (fakeItem, bool) {
	item, ok := f.items[name]
	if ok && item.until != 0 && f.clock() >= item.until {
		delete(f.items, name)
		ok = false
	}
	return item, ok
}

// serve reads a request at once and does it later, even if its client no longer waits for the answer. Commands
// that come in one go are answered in one go.
func (f *fakeServer) serve(nc net.Conn, gate, life int) {
	defer func() {
		nc.Close()
		f.set(func() { delete(f.conns, nc) })
	}()
	r := bufio.NewReader(nc)
	out := make(chan string, 100) // a client may write on while an answer comes
	defer close(out)
	go func() {
		for answer := range out {
			if _, err := io.WriteString(nc, answer); err != nil {
				nc.Close()
			}
		}
	}()
	var answers strings.Builder
	for begins := true; ; begins = r.Buffered() == 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		var value []byte
		if command := words[0]; command == "add" || command == "set" || command == "cas" {
			size, _ := strconv.Atoi(words[4])
			value = make([]byte, size+2)
			if _, err := io.ReadFull(r, value); err != nil {
				return
			}
			value = value[:size]
		}
		if begins {
			time.Sleep(f.latency / 2)
		}
		answer, ok := f.answer(gate, life, words, string(value))
		answers.WriteString(answer)
		if ok && r.Buffered() > 0 {
			continue
		}
		time.Sleep(f.latency / 2)
		if answers.Len() > 0 {
			out <- answers.String()
		}
		if !ok {
			time.Sleep(time.Nanosecond) // for what was said before
			return
		}
		answers.Reset()
	}
}

// answer is what the server says; "" is nothing, and not ok that the connection ends instead.
func (f *fakeServer) answer(gate, life int, words []string, value string) (answer string, ok bool) {
	f.mu.Lock()
	for f.thawed != nil {
		thawed := f.thawed
		f.mu.Unlock()
		<-thawed
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if f.down || f.killed != life {
		return "", false
	}
	if f.cut[gate] {
		return "", true
	}
	answer = f.do(words, value)
	if f.lose > 0 && f.loses(words[0]) {
		f.lose--
		return "", false
	}
	return answer, true
}

// loses reports whether the answer to command may be the next that is lost: in turn those to writes and to reads, so that
// of two commands in one go it is the first or the second.
func (f *fakeServer) loses(command string) bool {
	if f.lose%2 == 0 {
		return command == "gets"
	}
	return command == "add" || command == "cas"
}

func (f *fakeServer) do(words []string, value string) string {
	switch command := words[0]; command {
	case "get", "gets":
		return f.read(words[1:], command == "gets")
	case "gat":
		if item, ok := f.live(words[2]); ok {
			item.until = f.until(words[1])
			f.items[words[2]] = item
		}
		return f.read(words[2:], false)
	case "touch":
		item, ok := f.live(words[1])
		if !ok {
			return "NOT_FOUND\r\n"
		}
		item.until = f.until(words[2])
		f.items[words[1]] = item
		return "TOUCHED\r\n"
	case "add":
		if _, ok := f.live(words[1]); ok {
			return "NOT_STORED\r\n"
		}
	case "cas":
		item, ok := f.live(words[1])
		if !ok {
			return "NOT_FOUND\r\n"
		}
		if strconv.FormatUint(item.casID, 10) != words[5] {
			return "EXISTS\r\n"
		}
	case "set":
	case "version":
		return "VERSION 1.6.18\r\n"
	case "stats":
		return "END\r\n"
	default:
		return "ERROR\r\n"
	}
	f.casID++
	f.items[words[1]] = fakeItem{value, f.casID, f.until(words[3])}
	return "STORED\r\n"
}

func (f *fakeServer) until(seconds string) int64 {
	n, _ := strconv.ParseInt(seconds, 10, 64)
	switch {
	case n == 0:
		return 0
	case n < 0:
		return -1
	}
	return f.clock() + n
}

func (f *fakeServer) read(names []string, withCAS bool) string {
	var b strings.Builder
	for _, name := range names {
		item, ok := f.live(name)
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "VALUE %s 0 %d", name, len(item.value))
		if withCAS {
			fmt.Fprintf(&b, " %d", item.casID)
		}
		fmt.Fprintf(&b, "\r\n%s\r\n", item.value)
	}
	return b.String() + "END\r\n"
}
