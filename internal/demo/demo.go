// Package demo demonstrates the problem that fpm-gate solves on real servers: nginx and PHP-FPM run the same requests
// with and without the gate, and the measurements become a table for people or JSON for programs.
//
// internal/rig starts the servers. Each part has its own, on loopback and in a temporary folder, and stops them before
// the next part starts.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// Options configure the demo.
type Options struct {
	Binary   string    // the fpm-gate to start as the gate
	Parts    []int     // to run, as ParseParts returns them
	JSON     bool      // print the figures instead of the table
	Keep     bool      // keep the folder with all configs and logs
	Out      io.Writer // gets the table or the figures
	Progress io.Writer // gets the progress
}

// Run runs the demo and stops everything that it started, also when ctx ends. The error says what could not be started
// or measured.
func Run(ctx context.Context, o Options) error {
	began := time.Now()
	if err := rig.Need("nginx", "php-fpm"); err != nil {
		return fmt.Errorf("servers for the demo are missing: %w (or run `make demo`, which installs them)", err)
	}
	dir, err := os.MkdirTemp(shortFolder(os.TempDir()), "fpm-gate-demo-")
	if err != nil {
		return err
	}
	f, err := tell(ctx, o, dir)
	if o.Keep {
		defer fmt.Fprintf(o.Progress, "configs and logs of all servers are in %s\n", dir)
	} else {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that the demo had started is stopped")
	}
	if err != nil {
		return err
	}
	f.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	if o.JSON {
		return writeJSON(o.Out, f)
	}
	_, err = io.WriteString(o.Out, render(f, styleFor(o.Out)))
	return err
}

// shortFolder returns the folder for temporary files, or a shorter one if our sockets would not fit into the 107 bytes
// of a Unix socket's path.
func shortFolder(temp string) string {
	const room = 107 - len("/fpm-gate-demo-4294967295/php-2a-without-status.sock")
	if len(temp) > room {
		return "/tmp"
	}
	return temp
}

// tell runs the parts in dir.
func tell(ctx context.Context, o Options, dir string) (f *Figures, err error) {
	r, err := rig.New(dir)
	if err != nil {
		return nil, err
	}
	p := newProgress(o.Progress, o.Parts)
	s := &story{rig: r, binary: o.Binary, progress: p, figures: newFigures()}
	defer func() { err = errors.Join(err, r.Close()) }()
	defer p.end()
	for _, n := range o.Parts {
		if err := parts[n-1].run(s, ctx); err != nil {
			return nil, fmt.Errorf("part %d, %s: %w", n, parts[n-1].name, err)
		}
	}
	return s.figures, nil
}

// story is the state that the parts share.
type story struct {
	rig      *rig.Rig
	binary   string
	progress *progress
	figures  *Figures
}

// parts are the parts of the demo, numbered from 1.
var parts = []struct {
	name  string
	takes time.Duration // approximately
	run   func(*story, context.Context) error
}{
	{"two scripts of one session", 5 * time.Second, (*story).twoScripts},
	{"a burst of AJAX requests", 25 * time.Second, (*story).bursts},
	{"a script that hangs", 21 * time.Second, (*story).hangs},
	{"a visitor who reloads", 14 * time.Second, (*story).reloads},
	{"two hosts that share their sessions", 10 * time.Second, (*story).fleets},
	{"an export and its progress bar", 5 * time.Second, (*story).exports},
}

// ParseParts parses a list of parts such as "1,3"; "" means all.
func ParseParts(list string) ([]int, error) {
	var wanted []int
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 || n > len(parts) {
			return nil, fmt.Errorf("the demo has parts 1 to %d; got %q", len(parts), item)
		}
		wanted = append(wanted, n)
	}
	if wanted == nil {
		for i := range parts {
			wanted = append(wanted, i+1)
		}
	}
	slices.Sort(wanted)
	return slices.Compact(wanted), nil
}
