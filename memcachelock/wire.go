package memcachelock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/bradfitz/gomemcache/memcache"
)

// What gomemcache has no command for, or no place: two commands in one go, authentication, a look at a connection
// before it is used, stats. Each function is one question in memcached's text protocol on a connection of its own.

// maxValue bounds what is read of an item that anybody may have written.
const maxValue = 64 << 10

type wire struct {
	r *bufio.Reader
	w io.Writer
}

func newWire(rw io.ReadWriter) *wire { return &wire{bufio.NewReader(rw), rw} }

// line asks and reads the first line of the answer.
func (c *wire) line(format string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(c.w, format+"\r\n", args...); err != nil {
		return "", err
	}
	return c.readLine()
}

func (c *wire) readLine() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// authenticate says who we are, as memcached -Y has it: a set of any item, the first command of a connection.
func (c *wire) authenticate(user, password string) error {
	return c.store("set", "auth", user+" "+password, 0)
}

var errNotStored = errors.New("not stored")

// store is add or set. The error is errNotStored if the item is there already.
func (c *wire) store(command, name, value string, seconds int32) error {
	line, err := c.line("%s %s 0 %d %d\r\n%s", command, name, seconds, len(value), value)
	switch {
	case err != nil:
		return err
	case line == "STORED":
		return nil
	case line == "NOT_STORED":
		return errNotStored
	}
	return unexpected(command, line)
}

// get reads an item; "" if there is none.
func (c *wire) get(name string) (string, error) {
	if _, err := fmt.Fprintf(c.w, "get %s\r\n", name); err != nil {
		return "", err
	}
	items, err := c.items([]string{name})
	if err != nil || items[name] == nil {
		return "", err
	}
	return string(items[name].Value), nil
}

// take writes item, by cas if it has a CAS id, else by add, and reads the named items right behind that: both commands
// go out in one write. If the server has not written it the error is that of memcache, and the items come all the same.
func (c *wire) take(item *memcache.Item, names []string) (map[string]*memcache.Item, error) {
	command, id := "add", ""
	if item.CasID != 0 {
		command, id = "cas", fmt.Sprintf(" %d", item.CasID)
	}
	line, err := c.line("%s %s 0 %d %d%s\r\n%s\r\ngets %s", command, item.Key, item.Expiration, len(item.Value), id,
		item.Value, strings.Join(names, " "))
	if err != nil {
		return nil, err
	}
	refused, ok := writeAnswers[line]
	if !ok {
		return nil, unexpected(command, line)
	}
	items, err := c.items(names)
	if err != nil {
		return nil, err
	}
	return items, refused
}

// writeAnswers are what memcached says to add and cas, in the words of gomemcache.
var writeAnswers = map[string]error{
	"STORED":     nil,
	"NOT_STORED": memcache.ErrNotStored,
	"EXISTS":     memcache.ErrCASConflict,
	"NOT_FOUND":  memcache.ErrCacheMiss,
}

// items reads the answer to a get or gets of the named items.
func (c *wire) items(names []string) (map[string]*memcache.Item, error) {
	items := make(map[string]*memcache.Item, len(names))
	for {
		line, err := c.readLine()
		if err != nil {
			return nil, err
		}
		if line == "END" {
			return items, nil
		}
		item, err := c.item(line)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, item.Key) {
			return nil, unexpected("get", line)
		}
		items[item.Key] = item
	}
}

// item reads the item that begins with line: VALUE <name> <flags> <size>, and of gets the CAS id.
func (c *wire) item(line string) (*memcache.Item, error) {
	words := strings.Fields(line)
	if len(words) < 4 || len(words) > 5 || words[0] != "VALUE" {
		return nil, unexpected("get", line)
	}
	size, err := strconv.Atoi(words[3])
	if err != nil || size < 0 || size > maxValue {
		return nil, unexpected("get", line)
	}
	item := &memcache.Item{Key: words[1]}
	if len(words) == 5 {
		if item.CasID, err = strconv.ParseUint(words[4], 10, 64); err != nil {
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
	item.Value = value[:size]
	return item, nil
}

// stats reads the figures of a topic, "" or such as "settings".
func (c *wire) stats(topic string) (map[string]string, error) {
	line, err := c.line("%s", strings.TrimSpace("stats "+topic))
	figures := make(map[string]string)
	for ; err == nil; line, err = c.readLine() {
		if line == "END" {
			return figures, nil
		}
		words := strings.SplitN(line, " ", 3)
		if len(words) < 2 || words[0] != "STAT" {
			return nil, unexpected("stats", line)
		}
		figures[words[1]] = strings.Join(words[2:], "")
	}
	return nil, err
}

func unexpected(command, line string) error {
	return fmt.Errorf("%s: unexpected answer %q", command, line[:min(80, len(line))])
}
