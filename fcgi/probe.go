package fcgi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/yookoala/gofast"
)

var (
	// ErrProbe is returned when PHP-FPM's answer to a ping or status request is not as expected.
	ErrProbe = errors.New("unexpected answer")
	// ErrNoAnswer is returned when PHP-FPM accepts but does not answer a ping or status request in time. All its workers
	// may be busy.
	ErrNoAnswer = errors.New("no answer in time")
)

// Status is PHP-FPM's status page.
type Status struct {
	Pool               string `json:"pool"`
	ProcessManager     string `json:"process manager"`
	AcceptedConn       uint64 `json:"accepted conn"`
	ListenQueue        int    `json:"listen queue"`
	MaxListenQueue     int    `json:"max listen queue"`
	IdleProcesses      int    `json:"idle processes"`
	ActiveProcesses    int    `json:"active processes"`
	TotalProcesses     int    `json:"total processes"`
	KeptProcesses      int    `json:"-"` // idle on a kept connection, counted neither as active nor as idle
	MaxActiveProcesses int    `json:"max active processes"`
	MaxChildrenReached uint64 `json:"max children reached"`
	SlowRequests       uint64 `json:"slow requests"`
}

// Ping requests the ping page of the PHP-FPM at a, and returns an error unless the answer is a pong: status 200 and a
// body. It occupies a worker for a moment, and takes at most timeout.
func Ping(ctx context.Context, a Addr, path string, timeout time.Duration) error {
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
func QueryStatus(ctx context.Context, a Addr, path string, timeout time.Duration) (Status, error) {
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
func get(ctx context.Context, a Addr, path, query string, timeout time.Duration) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, a.Network, a.Address)
	switch {
	case errors.Is(err, syscall.EAGAIN): // its backlog is full
		return 0, nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case err != nil:
		return 0, nil, err
	}
	client, err := gofast.SimpleClientFactory(func() (net.Conn, error) { return nc, nil })()
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })() // ends reads and writes in progress
	r := gofast.NewRequest(nil)
	r.Raw = new(http.Request).WithContext(ctx) // without it, the client waits forever after an answer that it cannot parse
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

// ProbeOptions configure a Prober. Without a path it does nothing.
type ProbeOptions struct {
	PingPath   string
	StatusPath string
	Interval   time.Duration
	// Changed is called when the health of an address changes, with the reason unless it is Healthy. It may be nil.
	Changed func(Addr, Health, error)
}

// Health is the result of an address's last ping.
type Health int

// The possible values.
const (
	Healthy Health = iota // it answers, or was not pinged
	Busy                  // it accepts, but all workers are busy with requests of the pool
	Failing               // it does not answer
)

// Prober probes each address of a pool periodically. The pool avoids an address that fails its ping as long as there is
// another. Stop ends the Prober.
type Prober struct {
	pool     *Pool
	options  ProbeOptions
	life     context.Context // ended by Stop
	stop     context.CancelFunc
	running  sync.WaitGroup
	mu       sync.Mutex
	statuses map[Addr]Status
}

// StartProber starts to probe the addresses of pool.
func StartProber(pool *Pool, options ProbeOptions) *Prober {
	p := &Prober{pool: pool, options: options, statuses: make(map[Addr]Status)}
	p.life, p.stop = context.WithCancel(context.Background())
	if options.PingPath == "" && options.StatusPath == "" {
		return p
	}
	for _, b := range pool.backends {
		p.running.Go(func() { p.watch(b) })
	}
	return p
}

// Stop ends the probing, including a probe in progress, and waits for that. It can be called again.
func (p *Prober) Stop() {
	p.stop()
	p.running.Wait()
}

// Statuses returns the last status page of each address, if there was one.
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
	for p.life.Err() == nil { // a tick may be due as well
		p.probe(b)
		select {
		case <-tick.C:
		case <-p.life.Done():
		}
	}
}

func (p *Prober) probe(b *backend) {
	if p.options.PingPath != "" {
		p.ping(b)
	}
	if p.options.StatusPath != "" {
		s, err := QueryStatus(p.life, b.addr, p.options.StatusPath, p.options.Interval)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			delete(p.statuses, b.addr)
			return
		}
		p.statuses[b.addr] = s
	}
}

// ping pings an address. That all workers are busy with requests of the pool is no failure.
func (p *Prober) ping(b *backend) {
	busy := p.pool.isBusy(b)
	err := Ping(p.life, b.addr, p.options.PingPath, p.options.Interval)
	if p.life.Err() != nil {
		return // stopped, which says nothing about the address
	}
	health := Healthy
	switch {
	case err == nil:
	case errors.Is(err, ErrNoAnswer) && (busy || p.pool.isBusy(b)):
		health = Busy
	default:
		health = Failing
	}
	if p.pool.setHealth(b, health) && p.options.Changed != nil {
		p.options.Changed(b.addr, health, err)
	}
}

// isBusy reports whether b serves a request of the pool.
func (p *Pool) isBusy(b *backend) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.busy > 0
}

// setHealth records the result of a ping of b, and reports whether it has changed.
func (p *Pool) setHealth(b *backend, health Health) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed = b.health != health
	b.health = health
	return changed
}
