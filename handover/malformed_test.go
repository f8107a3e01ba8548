package handover

import (
	"encoding/json"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// line returns a message as it is sent.
func line(k kind, key sessionlock.Key) string {
	b, err := json.Marshal(message{Kind: k, Key: key[:], ID: 1})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// send returns a connection from which the text can be read, and then its end.
func send(t *testing.T, text string) net.Conn {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ends[1].Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	_ = ends[1].Close()
	return ends[0]
}

func TestWhatIsNoOfferIsNotTaken(t *testing.T) {
	one := line(held, keyOf(1))
	for name, text := range map[string]string{
		"nothing":                 "",
		"text":                    "hello\n",
		"a short key":             `{"kind":"held","key":"AAA="}` + "\n",
		"a part of a message":     one[:len(one)-5],
		"an end that is early":    one,
		"a lock that comes twice": one + one + line(complete, keyOf(0)),
	} {
		p := newProcess(t)
		if _, err := Take(send(t, text), p.locks); err == nil {
			t.Errorf("%s: got no error", name)
		}
		p.await(name+": no lock is left", func() bool { return len(p.locks.Snapshot()) == 0 })
	}
}

// What does not fit the messages before it ends the hand-over, with an error for the log, and keeps no lock.
func TestAnOfferThatGoesWrongKeepsNoLock(t *testing.T) {
	one, all := keyOf(1), line(held, keyOf(1))+line(complete, keyOf(0))
	for name, c := range map[string]struct {
		then  string
		fails bool
	}{
		"its end":                      {"", false},
		"a part of a message":          {`{"kind":"rel`, false},
		"a release":                    {line(release, one), false},
		"a release of another lock":    {line(release, keyOf(2)), false},
		"two releases":                 {line(release, one) + line(release, one), false},
		"a kind of a later version":    {line("later", one), false},
		"a lock to ask for":            {line(ask, keyOf(2)), false},
		"one more end of what is held": {line(complete, one), true},
		"one more lock that is held":   {line(held, keyOf(2)), true},
		"the same lock once more":      {line(held, one), true},
		"a question for what it has":   {line(ask, one), true},
		"the same question twice":      {line(ask, keyOf(2)) + line(ask, keyOf(2)), true},
		"no key":                       {line(release, one)[:len(`{"kind":"release"`)] + "}\n", true},
		"text":                         {"hello\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcess(t)
			taken, err := Take(send(t, all+c.then), p.locks)
			if err != nil {
				t.Fatal(err)
			}
			receive(t, "the end", taken.Done())
			if err := taken.Err(); (err != nil) != c.fails {
				t.Errorf("got error %v, want one: %v", err, c.fails)
			}
			if n := len(p.locks.Snapshot()); n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

// The process that ends hears of locks that it does not hold, as of one that it releases at that moment.
func TestAnAnswerThatNothingWaitsForIsIgnored(t *testing.T) {
	p := newProcess(t)
	held := p.acquire(keyOf(1), "held")
	p.offer()
	nc, err := net.Dial("unix", p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, text := range []string{line(granted, keyOf(1)), line(granted, keyOf(2)), line(broken, keyOf(2)), line("later", keyOf(1))} {
		if _, err := nc.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Write([]byte(line(broken, keyOf(1)))); err != nil {
		t.Fatal(err)
	}
	receive(t, "the end of the broken lock", held.Lost())
}
