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
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// load is what a number of browsers ask of a site at the same time, each one
// request after the other. A plain net/http client would use more CPU than all
// that is measured.
type load struct {
	site     *rig.Site
	path     string
	browsers int
	// cookies: each request has a session of its own, so none waits for another.
	cookies bool
	// want is the body of every response.
	want string
}

// loaded is what came of a load.
type loaded struct {
	requests int
	elapsed  time.Duration
}

func (l loaded) perSecond() float64 { return float64(l.requests) / l.elapsed.Seconds() }

// run loads the site for as long as d, and returns when all responses are there.
// A response that is not as it should be is an error.
func (l *load) run(ctx context.Context, d time.Duration) (loaded, error) {
	results := make(chan loaded)
	errs := make([]error, l.browsers)
	start := time.Now()
	var group sync.WaitGroup
	for i := range l.browsers {
		group.Go(func() {
			var got loaded
			got.requests, errs[i] = l.browse(ctx, i, start.Add(d))
			got.elapsed = time.Since(start)
			results <- got
		})
	}
	go func() {
		group.Wait()
		close(results)
	}()
	var sum loaded
	for got := range results {
		sum.requests += got.requests
		sum.elapsed = max(sum.elapsed, got.elapsed)
	}
	return sum, errors.Join(errs...)
}

// browse sends one request after the other until the deadline.
func (l *load) browse(ctx context.Context, number int, deadline time.Time) (requests int, err error) {
	b, err := openBrowser(ctx, l.site)
	if err != nil {
		return 0, err
	}
	defer b.close()
	session := ""
	for ; time.Now().Before(deadline); requests++ {
		if l.cookies {
			session = fmt.Sprintf("bench%03dx%018d", number, requests)
		}
		body, err := b.get(l.path, session)
		if err != nil {
			return requests, err
		}
		if string(body) != l.want {
			return requests, fmt.Errorf("get %s: got body %q, want %q", l.path, body, l.want)
		}
	}
	return requests, nil
}

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

// errStatus is that of a response with a status other than 200.
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
	ok := strings.HasPrefix(status, "HTTP/1.1 200 ")
	length, chunked := 0, false
	for {
		line, err := b.line()
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "Content-Length":
			length, err = strconv.Atoi(value)
		case "Transfer-Encoding":
			chunked = true
		}
		if err != nil {
			return err
		}
	}
	if err := b.readBody(length, chunked); err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %q", errStatus, status)
	}
	return nil
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
