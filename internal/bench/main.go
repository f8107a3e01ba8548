// Command bench measures the gate on real nginx and real PHP-FPM, against what
// stands in its place otherwise, and writes docs/BENCHMARKS.md. Run it from the
// repository, with make bench or
//
//	go run ./internal/bench
//
// All that is compared is measured side by side in one run, in small slices that
// take turns (A B, B A, A B, …), and each round gives a ratio of its own. So a
// busy machine disturbs both sides, and the median of the ratios little. Times
// in the tables depend on the machine; the ratios hardly do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the options of the command line.
type options struct {
	quick bool     // a smoke run, whose numbers mean nothing
	only  []string // names of measures; empty: all of them
	gate  string   // the gate's binary; empty: it is built
	perf  string   // where perf writes profiles of the gates; empty: nowhere
	out   string   // the document to write; empty: none
}

func parseFlags(args []string) (options, error) {
	var o options
	var only string
	out := &optional{value: documentFile}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "a smoke run of a few seconds, with meaningless numbers and no document")
	flags.StringVar(&only, "only", "", "measure these `names` only, separated by commas, and write no document: "+
		strings.Join(names(), ", "))
	flags.StringVar(&o.gate, "gate", "", "the `binary` to measure, instead of a fresh build")
	flags.StringVar(&o.perf, "perf", "", "record the gates with perf as `FILE`.MEASURE-N; this disturbs the measurement")
	flags.Var(out, "o", "the `file` to write, even of a part or a smoke run (default "+documentFile+" of a whole run)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	if out.given || !o.quick && only == "" {
		o.out = out.value
	}
	return o, o.check()
}

func (o *options) check() error {
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only takes %s; got %q", strings.Join(names(), ", "), name)
		}
	}
	return nil
}

// optional is a flag that remembers whether it was given.
type optional struct {
	value string
	given bool
}

func (o *optional) String() string { return o.value }

func (o *optional) Set(value string) error {
	o.value, o.given = value, true
	return nil
}

// run measures what o selects, shows the tables and writes the document.
func run(ctx context.Context, o options, show io.Writer) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newReport(b)
	if err != nil {
		return err
	}
	for _, m := range measures {
		if len(o.only) > 0 && !slices.Contains(o.only, m.name) {
			continue
		}
		rows, err := b.measure(m)
		if err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
		b.say("")
		r.tables[m.name] = table(rows)
		fmt.Fprintf(show, "%s\n", r.tables[m.name])
	}
	if o.out == "" {
		return nil
	}
	if !filepath.IsAbs(o.out) {
		o.out = filepath.Join(b.root, o.out)
	}
	return r.write(o.out)
}
