// Package phpfpm asks PHP-FPM how it is: its ping and its status page, once or periodically.
//
// Its requests are the gate's own: small, rare. Web servers' go through fcgi, to whose pool a Prober reports.
package phpfpm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/yookoala/gofast"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

var (
	// ErrProbe is returned when PHP-FPM's answer to a ping or status request is not as expected.
	ErrProbe = errors.New("unexpected answer")
	// ErrNoAnswer is returned when PHP-FPM accepts but does not answer a ping or status request in time. All its workers
	// may be busy.
	ErrNoAnswer = errors.New("no answer in time")
)

// Ping requests the ping page of the PHP-FPM at a, and returns an error unless the answer is a pong: status 200 and a
// body. It occupies a worker for a moment, and takes at most timeout.
func Ping(ctx context.Context, a netaddr.Addr, path string, timeout time.Duration) error {
	status, body, err := get(ctx, a, path, "", timeout)
	switch {
	case err != nil:
		return fmt.Errorf("ping %s: %w", a, err)
	case status != http.StatusOK || len(body) == 0:
		return fmt.Errorf("ping %s: %w: status %d for %s; is it the pool's ping.path?", a, ErrProbe, status, path)
	}
	return nil
}

// QueryStatus requests the status page of the PHP-FPM at a. It occupies a worker for a moment, and takes at most
// timeout.
func QueryStatus(ctx context.Context, a netaddr.Addr, path string, timeout time.Duration) (Status, error) {
	var s Status
	status, body, err := get(ctx, a, path, "full&json", timeout)
	switch {
	case err != nil:
		return s, fmt.Errorf("status of %s: %w", a, err)
	case status != http.StatusOK:
		return s, fmt.Errorf("status of %s: %w: status %d for %s; is it the pool's pm.status_path?",
			a, ErrProbe, status, path)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("status of %s: %w: %w", a, ErrProbe, err)
	}
	return s, nil
}

// get sends a request of the gate's own. Such requests are small and rare; web servers' requests do not go this way.
func get(ctx context.Context, a netaddr.Addr, path, query string, timeout time.Duration) (
	status int, body []byte, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, a.Network, a.Address)
	switch {
	case errors.Is(err, syscall.EAGAIN): // a unix socket whose backlog is full; over TCP that is a timeout
		return 0, nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case err != nil:
		return 0, nil, err
	}
	client, err := gofast.SimpleClientFactory(func() (net.Conn, error) { return nc, nil })()
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	// Closing the connection ends the client's reads and writes in progress.
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	r := gofast.NewRequest(nil)
	r.Raw = new(http.Request).WithContext(ctx) // without it, the client waits forever after an answer that it cannot parse
	// PHP-FPM compares SCRIPT_NAME with ping.path and pm.status_path, and opens no file for these pages.
	r.Params = map[string]string{
		"SCRIPT_NAME": path, "SCRIPT_FILENAME": path, "REQUEST_URI": path, "QUERY_STRING": query,
		"REQUEST_METHOD": http.MethodGet, "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1",
	}
	pipe, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	p := page{status: http.StatusOK, header: make(http.Header)}
	var stderr bytes.Buffer
	err = pipe.WriteTo(&p, &stderr)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return 0, nil, ErrNoAnswer
	case ctx.Err() != nil:
		return 0, nil, ctx.Err()
	case err != nil:
		return 0, nil, fmt.Errorf("%w: %w", ErrProbe, err)
	}
	// PHP writes to stderr when it takes the path for a script that does not exist ("Primary script unknown").
	if text := strings.TrimSpace(stderr.String()); text != "" {
		return 0, nil, fmt.Errorf("%w: %s", ErrProbe, text)
	}
	return p.status, p.body.Bytes(), nil
}

// page is an http.ResponseWriter that keeps the response.
type page struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (p *page) Header() http.Header         { return p.header }
func (p *page) WriteHeader(status int)      { p.status = status }
func (p *page) Write(b []byte) (int, error) { return p.body.Write(b) }
