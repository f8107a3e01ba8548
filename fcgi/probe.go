package fcgi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/yookoala/gofast"
)

// ErrProbe is that of a PHP-FPM that answers its ping or status page with something else than it should.
var ErrProbe = errors.New("unexpected answer")

// Status is what PHP-FPM says of a pool on its status page.
type Status struct {
	Pool               string `json:"pool"`
	ProcessManager     string `json:"process manager"`
	AcceptedConn       uint64 `json:"accepted conn"`
	ListenQueue        int    `json:"listen queue"`
	MaxListenQueue     int    `json:"max listen queue"`
	IdleProcesses      int    `json:"idle processes"`
	ActiveProcesses    int    `json:"active processes"`
	TotalProcesses     int    `json:"total processes"`
	MaxActiveProcesses int    `json:"max active processes"`
	MaxChildrenReached uint64 `json:"max children reached"`
	SlowRequests       uint64 `json:"slow requests"`
}

// Ping asks the PHP-FPM at a for its ping page, and returns an error unless the answer is its pong: status 200
// and a body. It takes a worker for a moment, and at most timeout.
func Ping(a Addr, path string, timeout time.Duration) error {
	status, body, err := get(a, path, "", timeout)
	switch {
	case err != nil:
		return fmt.Errorf("ping %s: %w", a, err)
	case status != http.StatusOK || len(body) == 0:
		return fmt.Errorf("ping %s: %w: status %d for %s; is it the pool's ping.path?", a, ErrProbe, status, path)
	}
	return nil
}

// QueryStatus asks the PHP-FPM at a for its status page. It takes a worker for a moment, and at most timeout.
func QueryStatus(a Addr, path string, timeout time.Duration) (Status, error) {
	var s Status
	status, body, err := get(a, path, "json", timeout)
	switch {
	case err != nil:
		return s, fmt.Errorf("status of %s: %w", a, err)
	case status != http.StatusOK:
		return s, fmt.Errorf("status of %s: %w: status %d for %s; is it the pool's pm.status_path?", a, ErrProbe, status, path)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("status of %s: %w: %w", a, ErrProbe, err)
	}
	return s, nil
}

// get makes one request of the gate's own. What is asked for is small and comes seldom: this is not the way
// that the requests of web servers take.
func get(a Addr, path, query string, timeout time.Duration) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	client, err := gofast.SimpleClientFactory(func() (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, a.Network, a.Address)
	})()
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	r := gofast.NewRequest(nil)
	r.Raw = new(http.Request).WithContext(ctx) // without it, an answer that is not understood is waited for without end
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
	if err := pipe.WriteTo(&p, &stderr); err != nil {
		return 0, nil, cmp.Or(ctx.Err(), fmt.Errorf("%w: %w", ErrProbe, err))
	}
	if text := strings.TrimSpace(stderr.String()); text != "" {
		return 0, nil, fmt.Errorf("%w: %s", ErrProbe, text)
	}
	return p.status, p.body.Bytes(), nil
}

// page keeps a response.
type page struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (p *page) Header() http.Header         { return p.header }
func (p *page) WriteHeader(status int)      { p.status = status }
func (p *page) Write(b []byte) (int, error) { return p.body.Write(b) }

// ProbeOptions say what a Prober asks for. Without a path it asks for nothing.
type ProbeOptions struct {
	PingPath   string
	StatusPath string
	Interval   time.Duration
	// Changed is called when an address begins to fail its ping, with the reason, and with nil when it answers
	// again. Nil: nobody wants to know.
	Changed func(Addr, error)
}

// Prober asks each address of a pool, again and again, how it is. One that fails its ping is passed over as long
// as there is another. It ends by Stop.
type Prober struct {
	pool     *Pool
	options  ProbeOptions
	stop     chan struct{}
	stopOnce sync.Once
	running  sync.WaitGroup
	mu       sync.Mutex
	statuses map[Addr]Status
}

// StartProber starts to probe the addresses of pool.
func StartProber(pool *Pool, options ProbeOptions) *Prober {
	p := &Prober{pool: pool, options: options, stop: make(chan struct{}), statuses: make(map[Addr]Status)}
	if options.PingPath == "" && options.StatusPath == "" {
		return p
	}
	for _, b := range pool.backends {
		p.running.Go(func() { p.watch(b) })
	}
	return p
}

// Stop ends the probing, and waits until it has ended: for a probe that is under way at most an interval. It may be
// called again.
func (p *Prober) Stop() {
	p.stopOnce.Do(func() { close(p.stop) })
	p.running.Wait()
}

// Statuses returns the last status page of each address that has shown one.
func (p *Prober) Statuses() map[Addr]Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[Addr]Status, len(p.statuses))
	for a, s := range p.statuses {
		all[a] = s
	}
	return all
}

// watch probes one address until Stop.
func (p *Prober) watch(b *backend) {
	tick := time.NewTicker(p.options.Interval)
	defer tick.Stop()
	for {
		p.probe(b)
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

func (p *Prober) probe(b *backend) {
	if p.options.PingPath != "" {
		err := Ping(b.addr, p.options.PingPath, p.options.Interval)
		if p.pool.setFailing(b, err != nil) && p.options.Changed != nil {
			p.options.Changed(b.addr, err)
		}
	}
	if p.options.StatusPath != "" {
		s, err := QueryStatus(b.addr, p.options.StatusPath, p.options.Interval)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			delete(p.statuses, b.addr)
			return
		}
		p.statuses[b.addr] = s
	}
}

// setFailing notes how the probe of b went, and says whether that is news.
func (p *Pool) setFailing(b *backend, failing bool) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = b.failing != failing
	b.failing = failing
	return changed
}
