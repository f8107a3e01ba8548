package main

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// stage is where one measure is taken: the servers of a rig, and what the
// command line asks for.
type stage struct {
	*rig.Rig
	*bench
	name     string
	sessions int // ids given
	perf     []*exec.Cmd
}

// The pools are small, as on a small host: what waits for a worker shows.
const workers = 10

// gateSettings are a gate's settings besides its addresses.
type gateSettings struct {
	upstream string // more of its upstream block
	block    string // more of its gate block
	outside  string // more blocks
}

// recommended are the settings that the README recommends, and keptConns is how
// many connections nginx keeps to a gate then.
var recommended = gateSettings{upstream: fmt.Sprintf("max_connections = %d", workers)}

const keptConns = 64

// PHPFPM starts a PHP-FPM as sites have it.
func (st *stage) PHPFPM(o rig.PHPOptions) (*rig.PHPFPM, error) {
	o.AllExtensions = true
	return st.Rig.PHPFPM(o)
}

// startGate starts a gate before php.
func (st *stage) startGate(php *rig.PHPFPM, settings gateSettings) (*rig.Gate, error) {
	listen, err := st.Reserve("unix", "gate")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`gate "www" {
  listen = %q
  upstream {
    address = %q
    %s
  }
  %s
}
%s`, listen, php.Addr, settings.upstream, settings.block, settings.outside)
	gate, err := st.Gate(rig.GateOptions{Binary: st.gate, Config: config})
	if err != nil {
		return nil, err
	}
	return gate, st.startPerf(gate)
}

// chain is nginx and PHP-FPM with a gate between them, or none.
type chain struct {
	name  string
	site  *rig.Site
	nginx *rig.Server
	gate  *rig.Gate // nil: nginx passes on to PHP-FPM, over a connection for each request
	php   *rig.PHPFPM
}

// startChain starts all servers of a chain; settings are nil where there is no gate.
func (st *stage) startChain(name string, o rig.PHPOptions, settings *gateSettings) (c *chain, err error) {
	c = &chain{name: name}
	if c.php, err = st.PHPFPM(o); err != nil {
		return nil, err
	}
	c.site = &rig.Site{FastCGI: c.php.Addr}
	if settings != nil {
		if c.gate, err = st.startGate(c.php, *settings); err != nil {
			return nil, err
		}
		c.site = &rig.Site{FastCGI: c.gate.Addr, Keepalive: keptConns}
	}
	c.nginx, err = st.Nginx(rig.NginxOptions{Sites: []*rig.Site{c.site}})
	return c, err
}

// handler is one of PHP's session handlers: the settings with which PHP keeps its
// sessions there, and locks them.
type handler struct {
	name string
	ini  map[string]string
}

// handlers starts the stores of PHP's sessions, and returns the handlers. The
// last of them waits for its lock too briefly to keep it in a storm.
func (st *stage) handlers() ([]handler, error) {
	memcached, err := st.Memcached(rig.StoreOptions{})
	if err != nil {
		return nil, err
	}
	redis, err := st.Redis(rig.StoreOptions{})
	if err != nil {
		return nil, err
	}
	patient := rig.RedisSessions(redis, true)
	patient["redis.session.lock_retries"] = "-1"
	return []handler{
		{"files", nil},
		{"php-memcached", rig.MemcachedSessions(memcached)},
		{"phpredis, lock_retries = -1", patient},
		{"phpredis", rig.RedisSessions(redis, true)},
	}, nil
}

// session returns a new session id.
func (st *stage) session() string {
	st.sessions++
	return fmt.Sprintf("%s%020d", st.name, st.sessions)
}

//go:embed php
var scripts embed.FS

// writeScripts writes the benchmark's own scripts next to the rig's.
func (st *stage) writeScripts() error {
	files, err := scripts.ReadDir("php")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := scripts.ReadFile("php/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(st.DocRoot, f.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// full returns n, or what a smoke run takes in its place.
func full[T int | time.Duration](st *stage, n, quick T) T {
	if st.options.quick {
		return quick
	}
	return n
}

// plan returns the plan of an interleave that shows its progress.
func (st *stage) plan(what string, rounds int) plan {
	p := plan{rounds: full(st, rounds, 1), warmUp: !st.options.quick}
	p.say = func(round int, side string) {
		st.say("%s: %s: %s, round %d of %d", st.name, what, side, round, p.rounds)
	}
	if !st.tty { // a line for each turn would be too many
		st.say("%s: %s", st.name, what)
		p.say = nil
	}
	return p
}

// startPerf records the gate's stacks, if an option says so.
func (st *stage) startPerf(gate *rig.Gate) error {
	if st.options.perf == "" {
		return nil
	}
	file := fmt.Sprintf("%s.%s-%d", st.options.perf, st.name, len(st.perf)+1)
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "499", "-o", file, "-p", fmt.Sprint(gate.Pid()))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("record the gate: %w", err)
	}
	st.perf = append(st.perf, cmd)
	return nil
}

// stopPerf lets perf write its files.
func (st *stage) stopPerf() {
	for _, cmd := range st.perf {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it exits by the signal
	}
}
