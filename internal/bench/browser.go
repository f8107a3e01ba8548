package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// browser is one HTTP connection that is kept.
type browser struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	body    bytes.Buffer
	stop    func() bool
}

// openBrowser connects to a site. When ctx is done the browser's requests fail.
func openBrowser(ctx context.Context, site *rig.Site) (*browser, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, site.Listen.Network, site.Listen.Address)
	if err != nil {
		return nil, err
	}
	b := &browser{conn: conn, in: bufio.NewReader(conn)}
	b.stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return b, nil
}

func (b *browser) close() {
	b.stop()
	b.conn.Close()
}

// errStatus is returned for a response with a status other than 200.
var errStatus = errors.New("status is not 200")

// get returns the body of a page, which is valid until the next get. Session is
// the id in the session cookie; empty: no cookie.
func (b *browser) get(path, session string) ([]byte, error) {
	b.request = append(b.request[:0], "GET "+path+" HTTP/1.1\r\nHost: bench.example\r\n"...)
	if session != "" {
		b.request = append(b.request, "Cookie: theme=dark; PHPSESSID="+session+"\r\n"...)
	}
	b.request = append(b.request, "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"+
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"+
		"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n"...)
	if _, err := b.conn.Write(b.request); err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	if err := b.readResponse(); err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return b.body.Bytes(), nil
}

func (b *browser) readResponse() error {
	status, err := b.line()
	if err != nil {
		return err
	}
	length, chunked, err := b.readHeader()
	if err != nil {
		return err
	}
	if err := b.readBody(length, chunked); err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return fmt.Errorf("%w: %q", errStatus, status)
	}
	return nil
}

// readHeader returns how the header delimits the body.
func (b *browser) readHeader() (length int, chunked bool, err error) {
	for {
		line, err := b.line()
		if err != nil || line == "" {
			return length, chunked, err
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "Content-Length":
			if length, err = strconv.Atoi(value); err != nil {
				return 0, false, err
			}
		case "Transfer-Encoding":
			chunked = true
		}
	}
}

func (b *browser) readBody(length int, chunked bool) error {
	b.body.Reset()
	if !chunked {
		_, err := io.CopyN(&b.body, b.in, int64(length))
		return err
	}
	if _, err := b.body.ReadFrom(httputil.NewChunkedReader(b.in)); err != nil {
		return err
	}
	_, err := b.line() // the end of the trailer, which is left there
	return err
}

func (b *browser) line() (string, error) {
	line, err := b.in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return string(bytes.TrimRight(line, "\r\n")), nil
}
