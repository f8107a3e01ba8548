package memcachelock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// What gomemcache has no command for, or no place: authentication, a look at a connection before it is used, stats.
// Each function is one question in memcached's text protocol on a connection of its own.

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
	line, err := c.line("get %s", name)
	if err != nil || line == "END" {
		return "", err
	}
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != "VALUE" || words[1] != name {
		return "", unexpected("get", line)
	}
	size, err := strconv.Atoi(words[3])
	if err != nil || size < 0 || size > maxValue {
		return "", unexpected("get", line)
	}
	value := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(c.r, value); err != nil {
		return "", err
	}
	if line, err = c.readLine(); err != nil {
		return "", err
	}
	if line != "END" {
		return "", unexpected("get", line)
	}
	return string(value[:size]), nil
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
