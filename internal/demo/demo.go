// Package demo tells the story of the problem that fpm-gate solves, on real
// servers: nginx and PHP-FPM run it with and without the gate, and what was
// measured becomes a table for people or JSON for programs.
//
// The servers are those of internal/rig. Each part of the story has its own, on
// loopback and in a temporary folder, and ends them before the next begins.
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

// Options say what is told, and where.
type Options struct {
	Binary   string    // fpm-gate itself, which is started as the gate
	Parts    []int     // of the story, as ParseParts returns them
	JSON     bool      // figures instead of the table
	Keep     bool      // the folder with all configs and logs stays
	Out      io.Writer // gets the table or the figures
	Progress io.Writer // gets what happens meanwhile
}

// Run starts the servers, tells the story and ends all that it started, also
// when ctx ends. An error says what could not be started or measured.
func Run(ctx context.Context, o Options) error {
	began := time.Now()
	if err := rig.Need("nginx", "php-fpm"); err != nil {
		return fmt.Errorf("the demo runs on real servers, and some are missing: %w (or run `make demo`, which does that)", err)
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
		return errors.New("interrupted; all that the demo had started has been ended")
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

// shortFolder returns the folder for temporary files, or a shorter one where that
// leaves no room for our sockets in the 107 bytes of a Unix socket's path.
func shortFolder(temp string) string {
	const room = 107 - len("/fpm-gate-demo-4294967295/php-2a-without-status.sock")
	if len(temp) > room {
		return "/tmp"
	}
	return temp
}

// tell runs the parts of the story in dir.
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

// story is what its parts share.
type story struct {
	rig      *rig.Rig
	binary   string
	progress *progress
	figures  *Figures
}

// parts are the story. They are counted from 1.
var parts = []struct {
	name  string
	takes time.Duration // about
	run   func(*story, context.Context) error
}{
	{"two scripts of one session", 5 * time.Second, (*story).twoScripts},
	{"a burst of AJAX requests", 25 * time.Second, (*story).bursts},
	{"a script that hangs", 21 * time.Second, (*story).hangs},
	{"a visitor who reloads", 14 * time.Second, (*story).reloads},
	{"two hosts that share their sessions", 10 * time.Second, (*story).fleets},
	{"an export and its progress bar", 5 * time.Second, (*story).exports},
}

// ParseParts reads which parts are wanted, as in "1,3"; "" means all.
func ParseParts(list string) ([]int, error) {
	var wanted []int
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 || n > len(parts) {
			return nil, fmt.Errorf("the story has parts 1 to %d; got %q", len(parts), item)
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
