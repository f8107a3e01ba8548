package memcachelock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// item is what a server has under a name, or is to have.
type item struct {
	name    string
	value   []byte
	seconds int32  // when written: how long it lives; zero: for ever; deleteNow: it goes at once
	casID   uint64 // when written: what it must not have changed since, zero: there must be none
}

// deleteNow is the seconds of an item that is deleted by compare-and-swap.
const deleteNow = -1

// What a server answers to a write that it refuses.
var (
	errNotStored = errors.New("an item of that name exists")   // to an add
	errConflict  = errors.New("the item has changed since")    // to a cas
	errMissing   = errors.New("there is no item of that name") // to a cas or touch
	errMalformed = errors.New("unexpected answer")             // wraps what it said
)

// Limits of an answer, which anybody may have written who can write to the server. A line is as long as a bufio.Reader's
// buffer at most.
const maxValue = 16 << 10

// wire speaks memcached's text protocol: each method is one round trip. It sets no deadline.
type wire struct {
	r *bufio.Reader
	w io.Writer
}

func newWire(rw io.ReadWriter) *wire { return &wire{bufio.NewReader(rw), rw} }

// get reads the named items, with their CAS ids. Those that do not exist are left out.
func (c *wire) get(names ...string) (map[string]*item, error) {
	return c.poll([][]string{names}, nil, 0)
}

// poll reads the named items as get does, by one command for each list of names, and makes others live for the given
// seconds from now, if they exist.
func (c *wire) poll(lists [][]string, touch []string, seconds int32) (map[string]*item, error) {
	var b strings.Builder
	for _, names := range lists {
		fmt.Fprintf(&b, "gets %s\r\n", strings.Join(names, " "))
	}
	for _, name := range touch {
		fmt.Fprintf(&b, "touch %s %d\r\n", name, seconds)
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	items := make(map[string]*item)
	for _, names := range lists {
		if err := c.items(names, items); err != nil {
			return nil, err
		}
	}
	for range touch {
		if err := c.wrote("touch"); !answered(err) {
			return nil, err
		}
	}
	return items, nil
}

// touch makes the named items live for the given seconds from now and reads them, without their CAS ids. Those that do
// not exist are left out.
func (c *wire) touch(names []string, seconds int32) (map[string]*item, error) {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "gat %d %s\r\n", seconds, name)
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	items := make(map[string]*item)
	for i := range names {
		if err := c.items(names[i:i+1], items); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// write writes it by cas if it has a CAS id, else by add. The server refuses with errNotStored, errConflict or
// errMissing.
func (c *wire) write(it *item) error {
	if _, err := io.WriteString(c.w, writeCommand(it)); err != nil {
		return err
	}
	return c.wrote("write")
}

// writeAll writes the items in one round trip, and returns the server's answer to each.
func (c *wire) writeAll(items []*item) ([]error, error) {
	var b strings.Builder
	for _, it := range items {
		b.WriteString(writeCommand(it))
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	answers := make([]error, len(items))
	for i := range items {
		if answers[i] = c.wrote("write"); !answered(answers[i]) {
			return nil, answers[i]
		}
	}
	return answers, nil
}

// take writes it and then reads the named items: both commands go out in one write. If the server refuses to write, the
// items are read all the same.
func (c *wire) take(it *item, names []string) (map[string]*item, error) {
	if _, err := fmt.Fprintf(c.w, "%sgets %s\r\n", writeCommand(it), strings.Join(names, " ")); err != nil {
		return nil, err
	}
	refused := c.wrote("write")
	if !answered(refused) {
		return nil, refused
	}
	items := make(map[string]*item)
	if err := c.items(names, items); err != nil {
		return nil, err
	}
	return items, refused
}

func writeCommand(it *item) string {
	if it.casID != 0 {
		return fmt.Sprintf("cas %s 0 %d %d %d\r\n%s\r\n", it.name, it.seconds, len(it.value), it.casID, it.value)
	}
	return fmt.Sprintf("add %s 0 %d %d\r\n%s\r\n", it.name, it.seconds, len(it.value), it.value)
}

// authenticate logs in, as memcached -Y has it: by a set of any item, the first command of a connection.
func (c *wire) authenticate(user, password string) error {
	login := user + " " + password
	if _, err := fmt.Fprintf(c.w, "set auth 0 0 %d\r\n%s\r\n", len(login), login); err != nil {
		return err
	}
	return c.wrote("set")
}

// wrote reads the answer to a command that writes.
func (c *wire) wrote(command string) error {
	line, err := c.readLine()
	if err != nil {
		return err
	}
	refused, ok := writeAnswers[line]
	if !ok {
		return unexpected(command, line)
	}
	return refused
}

var writeAnswers = map[string]error{
	"STORED":     nil,
	"TOUCHED":    nil,
	"NOT_STORED": errNotStored,
	"EXISTS":     errConflict,
	"NOT_FOUND":  errMissing,
}

// answered reports whether err is the server's own answer.
func answered(err error) bool {
	return err == nil || errors.Is(err, errNotStored) || errors.Is(err, errConflict) || errors.Is(err, errMissing)
}

// items reads the answer to a get or gets of the named items.
func (c *wire) items(names []string, items map[string]*item) error {
	for {
		line, err := c.readLine()
		if err != nil {
			return err
		}
		if line == "END" {
			return nil
		}
		it, err := c.item(line)
		if err != nil {
			return err
		}
		i := slices.Index(names, it.name) // they come in the order in which they were named
		if i < 0 {
			return unexpected("get", line)
		}
		names = names[i+1:]
		items[it.name] = it
	}
}

// item reads the item that begins with line: VALUE <name> <flags> <size>, and of gets the CAS id.
func (c *wire) item(line string) (*item, error) {
	words := strings.Fields(line)
	if len(words) < 4 || len(words) > 5 || words[0] != "VALUE" {
		return nil, unexpected("get", line)
	}
	size, err := strconv.Atoi(words[3])
	if err != nil || size < 0 || size > maxValue {
		return nil, unexpected("get", line)
	}
	it := &item{name: words[1]}
	if len(words) == 5 {
		if it.casID, err = strconv.ParseUint(words[4], 10, 64); err != nil {
			return nil, unexpected("gets", line)
		}
	}
	value := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(c.r, value); err != nil {
		return nil, err
	}
	if string(value[size:]) != "\r\n" {
		return nil, unexpected("get", line)
	}
	it.value = value[:size]
	return it, nil
}

// maxStats bounds the answer to stats; memcached has about a hundred of a topic.
const maxStats = 4096

// stats reads the figures of a topic, "" or such as "settings".
func (c *wire) stats(topic string) (map[string]string, error) {
	line, err := c.line(strings.TrimSpace("stats " + topic))
	figures := make(map[string]string)
	for ; err == nil; line, err = c.readLine() {
		if line == "END" {
			return figures, nil
		}
		words := strings.SplitN(line, " ", 3)
		if len(words) < 2 || words[0] != "STAT" || len(figures) > maxStats {
			return nil, unexpected("stats", line)
		}
		figures[words[1]] = strings.Join(words[2:], "")
	}
	return nil, err
}

// line sends a command and reads the first line of the answer.
func (c *wire) line(command string) (string, error) {
	if _, err := io.WriteString(c.w, command+"\r\n"); err != nil {
		return "", err
	}
	return c.readLine()
}

func (c *wire) readLine() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", unexpected("a line", string(line))
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func unexpected(command, line string) error {
	return fmt.Errorf("%s: %w: %q", command, errMalformed, line[:min(80, len(line))])
}
