package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// client is a web server with one request. It is as small as can be, so that
// thousands of them fit next to what is measured.
type client struct {
	conn net.Conn
	stop func() bool
}

// dial connects to a FastCGI server. When ctx is done the client's calls fail.
func dial(ctx context.Context, addr rig.Addr) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, addr.Network, addr.Address)
	for errors.Is(err, syscall.EAGAIN) { // too many come at once for a server that is not on a CPU just now
		time.Sleep(time.Millisecond)
		conn, err = (&net.Dialer{}).DialContext(ctx, addr.Network, addr.Address)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return &client{conn, stop}, nil
}

func (c *client) close() {
	c.stop()
	c.conn.Close()
}

// send sends a request for a script, with params as nginx sends them for a browser.
func (c *client) send(docRoot, script, query, session string) error {
	var params []byte
	for _, p := range nginxParams(docRoot, script, query, session) {
		params = appendLength(params, len(p[0]))
		params = appendLength(params, len(p[1]))
		params = append(params, p[0]+p[1]...)
	}
	request := appendRecord(nil, 1, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // begin request: a responder, conn not kept
	request = appendRecord(request, 4, params)
	request = appendRecord(request, 4, nil)
	request = appendRecord(request, 5, nil) // no stdin
	_, err := c.conn.Write(request)
	return err
}

// nginxParams are the params of a browser's request for a page: about 1.2 KB.
func nginxParams(docRoot, script, query, session string) [][2]string {
	return [][2]string{
		{"QUERY_STRING", query}, {"REQUEST_METHOD", "GET"}, {"CONTENT_TYPE", ""}, {"CONTENT_LENGTH", ""},
		{"SCRIPT_NAME", script}, {"REQUEST_URI", script + "?" + query}, {"DOCUMENT_URI", script},
		{"DOCUMENT_ROOT", docRoot}, {"SERVER_PROTOCOL", "HTTP/2.0"}, {"REQUEST_SCHEME", "https"}, {"HTTPS", "on"},
		{"GATEWAY_INTERFACE", "CGI/1.1"}, {"SERVER_SOFTWARE", "nginx/1.22.1"}, {"REMOTE_ADDR", "198.51.100.27"},
		{"REMOTE_PORT", "52144"}, {"SERVER_ADDR", "203.0.113.8"}, {"SERVER_PORT", "443"},
		{"SERVER_NAME", "shop.example"}, {"REDIRECT_STATUS", "200"}, {"SCRIPT_FILENAME", docRoot + script},
		{"PATH_INFO", ""}, {"HTTP_HOST", "shop.example"},
		{"HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		{"HTTP_ACCEPT", "application/json, text/javascript, */*; q=0.01"},
		{"HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"}, {"HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"},
		{"HTTP_X_REQUESTED_WITH", "XMLHttpRequest"}, {"HTTP_REFERER", "https://shop.example/checkout/cart"},
		{"HTTP_COOKIE", "consent=all; theme=dark; _ga=GA1.2.1193847566.1712345678; _gid=GA1.2.802734119.1712345678; " +
			"PHPSESSID=" + session},
		{"HTTP_SEC_CH_UA", `"Chromium";v="140", "Not=A?Brand";v="24"`}, {"HTTP_SEC_CH_UA_PLATFORM", `"Linux"`},
		{"HTTP_SEC_FETCH_DEST", "empty"}, {"HTTP_SEC_FETCH_MODE", "cors"}, {"HTTP_SEC_FETCH_SITE", "same-origin"},
		{"HTTP_PRIORITY", "u=4"}, {"HTTP_PRAGMA", "no-cache"}, {"HTTP_CACHE_CONTROL", "no-cache"},
	}
}

func appendLength(b []byte, n int) []byte {
	if n < 128 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}

func appendRecord(b []byte, recordType byte, content []byte) []byte {
	b = append(b, 1, recordType, 0, 1) // version, type, request id 1
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	b = append(b, 0, 0) // no padding, reserved
	return append(b, content...)
}

// receive writes the response's stdout, with its header block, to w, and returns
// at its end request. An empty buffer will do for short responses.
func (c *client) receive(w io.Writer, buffer []byte) error {
	for {
		var header [8]byte
		if _, err := io.ReadFull(c.conn, header[:]); err != nil {
			return fmt.Errorf("before end request: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		content := io.LimitReader(c.conn, int64(binary.BigEndian.Uint16(header[4:])))
		to := io.Discard
		if header[1] == 6 { // stdout
			to = w
		}
		if _, err := io.CopyBuffer(to, content, buffer); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, c.conn, int64(header[6])); err != nil { // padding
			return err
		}
		if header[1] == 3 { // end request
			return nil
		}
	}
}
