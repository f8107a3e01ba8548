package memcached

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// said is a server that says what it will, whatever it is asked.
type said struct {
	io.Reader
	heard bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) { return s.heard.Write(b) }

var (
	takeItem  = kv.Item{Name: "a", Value: []byte("new"), TTL: 10 * time.Second}
	takeNames = []string{"a", "b"}
)

const takeAnswer = "STORED\r\nVALUE a 0 3 7\r\nnew\r\nVALUE b 0 2 8\r\n\r\n\r\nEND\r\n"

func TestATakeReadsBothAnswers(t *testing.T) {
	for version, want := range map[uint64]string{
		0: "add a 0 10 3\r\nnew\r\ngets a b\r\n",
		6: "cas a 0 10 3 6\r\nnew\r\ngets a b\r\n",
	} {
		s := &said{Reader: iotest.OneByteReader(strings.NewReader(takeAnswer))}
		it := takeItem
		it.Version = version
		items, err := newWire(s).take(&it, takeNames)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.heard.String(); got != want {
			t.Errorf("got the question %q, want %q", got, want)
		}
		if a, b := items[0], items[1]; string(a.Value) != "new" || a.Version != 7 || string(b.Value) != "\r\n" || b.Version != 8 {
			t.Errorf("got %+v and %+v", a, b)
		}
	}
}

func TestATakeThatIsRefusedReadsTheItemsAllTheSame(t *testing.T) {
	for line, want := range map[string]error{
		"NOT_STORED": kv.ErrExists,
		"EXISTS":     kv.ErrChanged,
		"NOT_FOUND":  kv.ErrMissing,
	} {
		answer := strings.Replace(takeAnswer, "STORED", line, 1)
		items, err := newWire(&said{Reader: strings.NewReader(answer)}).take(&takeItem, takeNames)
		if !errors.Is(err, want) || len(items) != 2 || items[1] == nil {
			t.Errorf("%s: got the items %v and error %v, want 2 and %v", line, items, err, want)
		}
	}
}

// Half an answer is none: an add that was heard makes no lease without the epoch behind it.
func TestATakeBelievesNoAnswerThatIsCut(t *testing.T) {
	for n := range len(takeAnswer) {
		_, err := newWire(&said{Reader: strings.NewReader(takeAnswer[:n])}).take(&takeItem, takeNames)
		if kv.Answered(err) || !broken(err) {
			t.Errorf("got error %v after %q, want a broken connection", err, takeAnswer[:n])
		}
	}
}

func TestATakeBelievesNoNonsense(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 400 Bad Request\r\n",
		"SERVER_ERROR out of memory storing object\r\nEND\r\n",
		"STORED\r\nSTORED\r\n",
		"STORED\r\nVALUE other 0 1 1\r\na\r\nEND\r\n",
		"STORED\r\nVALUE a 0 -1 1\r\na\r\nEND\r\n",
		"STORED\r\nVALUE a 0 99999999 1\r\na\r\nEND\r\n",
		"STORED\r\nVALUE a 0 1 x\r\na\r\nEND\r\n",
		"STORED\r\nVALUE a 0 1 1\r\nab\r\nEND\r\n",
		"STORED\r\nVALUE a 0 1 1 1\r\na\r\nEND\r\n",
	} {
		if _, err := newWire(&said{Reader: strings.NewReader(answer)}).take(&takeItem, takeNames); kv.Answered(err) || broken(err) {
			t.Errorf("got error %v after %q, want it unexpected", err, answer)
		}
	}
}
