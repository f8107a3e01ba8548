package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"
)

// pauses remembers until when gates are paused in a file of the unit, so that neither a restart nor a crash ends a
// pause. The zero value remembers nothing beyond the process.
type pauses struct {
	file string // "": there is none
	log  *logs

	mu         sync.Mutex
	until      map[string]time.Time // by gate
	handedOver bool                 // the file is the next process's
}

// load reads what the process before this one has left.
func (p *pauses) load(file string, log *logs) {
	p.file, p.log = file, log
	until, err := readPauses(file)
	if err != nil {
		log.Warn("pauses of the previous process are not known", "error", err)
	}
	p.until = until
}

func readPauses(file string) (map[string]time.Time, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var until map[string]time.Time
	if err := json.Unmarshal(text, &until); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return until, nil
}

// left returns how long a gate that is going to be served is to be paused; zero: not at all.
func (p *pauses) left(gate string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.until[gate]), 0)
}

// note remembers that a gate is paused until then, or with zero no longer.
func (p *pauses) note(gate string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == "" || p.handedOver {
		return
	}
	next := maps.Clone(p.until)
	if until.IsZero() {
		delete(next, gate)
	} else {
		if next == nil {
			next = make(map[string]time.Time)
		}
		next[gate] = until
	}
	p.until = next
	if err := p.write(); err != nil {
		p.log.Warn("a restart would end this pause, or begin it again", "gate", gate, "error", err)
	}
}

// write replaces the file as a whole.
func (p *pauses) write() error {
	if len(p.until) == 0 {
		if err := os.Remove(p.file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(p.until)
	if err != nil {
		return err
	}
	next := fmt.Sprintf("%s.%d", p.file, os.Getpid())
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.file)
}

// followPause is how often a process that has handed over looks whether the next one has ended a pause.
const followPause = 100 * time.Millisecond

// handOver leaves the pauses to the next process: a pause that it ends, ends here too.
func (p *pauses) handOver(gates map[string]*serving) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handedOver = true
	if p.file == "" {
		return
	}
	go func() {
		for range time.Tick(followPause) {
			until, err := readPauses(p.file)
			if err != nil {
				continue
			}
			for name, g := range gates {
				if _, paused := until[name]; !paused {
					g.gate.Resume()
				}
			}
		}
	}()
}
