package memcached

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// Limits of an answer, which anybody may have written who can write to the server. A line is as long as a
// bufio.Reader's buffer at most.
const maxValue = 16 << 10

// wire speaks memcached's text protocol, as protocol.txt of its source describes it: each method is one round trip. It
// sets no deadline. After an error that is no answer of the server (kv.Answered), the connection must be closed: the
// rest of an answer may still come.
type wire struct {
	r *bufio.Reader
	w io.Writer
}

func newWire(rw io.ReadWriter) *wire { return &wire{bufio.NewReader(rw), rw} }

// get reads the named items, with their CAS ids, in the order of their names: nil for one that does not exist.
func (c *wire) get(names ...string) ([]*kv.Item, error) {
	found, err := c.poll([][]string{names}, nil, 0)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// poll reads the named items as get does, by one command for each list of names, and makes others live for ttl from
// now, if they exist.
func (c *wire) poll(lists [][]string, touch []string, ttl time.Duration) ([][]*kv.Item, error) {
	var b strings.Builder
	for _, names := range lists {
		fmt.Fprintf(&b, "gets %s\r\n", strings.Join(names, " "))
	}
	for _, name := range touch {
		fmt.Fprintf(&b, "touch %s %d\r\n", name, seconds(ttl))
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	found := make([][]*kv.Item, len(lists))
	for i, names := range lists {
		var err error
		if found[i], err = c.items(names); err != nil {
			return nil, err
		}
	}
	for range touch {
		// That an item is missing is no failure: nothing was there to live on.
		if err := c.wrote("touch"); !kv.Answered(err) {
			return nil, err
		}
	}
	return found, nil
}

// touch makes the named items live for ttl from now and reads them, without their CAS ids.
func (c *wire) touch(names []string, ttl time.Duration) ([]*kv.Item, error) {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "gat %d %s\r\n", seconds(ttl), name)
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	all := make([]*kv.Item, len(names))
	for i := range names {
		items, err := c.items(names[i : i+1])
		if err != nil {
			return nil, err
		}
		all[i] = items[0]
	}
	return all, nil
}

// write writes it by cas if it has a version, else by add. The server refuses with kv.ErrExists, kv.ErrChanged or
// kv.ErrMissing.
func (c *wire) write(it *kv.Item) error {
	if _, err := io.WriteString(c.w, writeCommand(it)); err != nil {
		return err
	}
	return c.wrote("write")
}

// writeAll writes the items in one round trip, and returns the server's answer to each.
func (c *wire) writeAll(items []*kv.Item) ([]error, error) {
	var b strings.Builder
	for _, it := range items {
		b.WriteString(writeCommand(it))
	}
	if _, err := io.WriteString(c.w, b.String()); err != nil {
		return nil, err
	}
	answers := make([]error, len(items))
	for i := range items {
		if answers[i] = c.wrote("write"); !kv.Answered(answers[i]) {
			return nil, answers[i]
		}
	}
	return answers, nil
}

// take writes it and then reads the named items: both commands go out in one write. If the server refuses to write, the
// items are read all the same.
func (c *wire) take(it *kv.Item, names []string) ([]*kv.Item, error) {
	if _, err := fmt.Fprintf(c.w, "%sgets %s\r\n", writeCommand(it), strings.Join(names, " ")); err != nil {
		return nil, err
	}
	refused := c.wrote("write")
	if !kv.Answered(refused) {
		return nil, refused
	}
	items, err := c.items(names)
	if err != nil {
		return nil, err
	}
	return items, refused
}

// writeCommand returns the command that writes an item. The flags, which memcached only stores, are 0.
func writeCommand(it *kv.Item) string {
	if it.Version != 0 {
		return fmt.Sprintf("cas %s 0 %d %d %d\r\n%s\r\n", it.Name, seconds(it.TTL), len(it.Value), it.Version, it.Value)
	}
	return fmt.Sprintf("add %s 0 %d %d\r\n%s\r\n", it.Name, seconds(it.TTL), len(it.Value), it.Value)
}

// seconds is a TTL as memcached counts it, rounded up. A negative one is over at once.
func seconds(ttl time.Duration) int32 {
	if ttl < 0 {
		return -1
	}
	return int32((ttl + time.Second - 1) / time.Second)
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
	if !ok { // as "SERVER_ERROR out of memory storing object"
		return unexpected(command, line)
	}
	return refused
}

// writeAnswers are the answers to add, cas, set and touch, with the error that each means.
var writeAnswers = map[string]error{
	"STORED":     nil,
	"TOUCHED":    nil,
	"NOT_STORED": kv.ErrExists,
	"EXISTS":     kv.ErrChanged,
	"NOT_FOUND":  kv.ErrMissing,
}

// items reads the answer to a get or gets of the named items.
func (c *wire) items(names []string) ([]*kv.Item, error) {
	items := make([]*kv.Item, len(names))
	for next := 0; ; {
		line, err := c.readLine()
		if err != nil {
			return nil, err
		}
		if line == "END" {
			return items, nil
		}
		it, err := c.item(line)
		if err != nil {
			return nil, err
		}
		i := slices.Index(names[next:], it.Name) // they come in the order in which they were named
		if i < 0 {
			return nil, unexpected("get", line)
		}
		items[next+i] = it
		next += i + 1
	}
}

// item reads the item that begins with line: VALUE <name> <flags> <size>, and of gets the CAS id.
func (c *wire) item(line string) (*kv.Item, error) {
	words := strings.Fields(line)
	if len(words) < 4 || len(words) > 5 || words[0] != "VALUE" {
		return nil, unexpected("get", line)
	}
	size, err := strconv.Atoi(words[3])
	if err != nil || size < 0 || size > maxValue {
		return nil, unexpected("get", line)
	}
	it := &kv.Item{Name: words[1]}
	if len(words) == 5 {
		if it.Version, err = strconv.ParseUint(words[4], 10, 64); err != nil {
			return nil, unexpected("gets", line)
		}
	}
	value := make([]byte, size+len("\r\n")) // a value may contain line breaks, so its size counts
	if _, err := io.ReadFull(c.r, value); err != nil {
		return nil, err
	}
	if string(value[size:]) != "\r\n" {
		return nil, unexpected("get", line)
	}
	it.Value = value[:size]
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

// readLine reads a line without its end. A line that does not fit the reader's buffer is an error, so that no answer
// takes more memory.
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

// unexpected returns the error for an answer that the protocol does not have, with the start of the line.
func unexpected(command, line string) error {
	return fmt.Errorf("%s: %w: %q", command, kv.ErrMalformed, line[:min(80, len(line))])
}
