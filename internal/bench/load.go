package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// load is what a number of browsers ask of a site at the same time, each one
// request after the other. Each request has a session of its own, so none waits
// for another's lock. A plain net/http client would use more CPU than all that is
// measured.
type load struct {
	site     *rig.Site
	path     string
	want     string // the body of every response
	browsers int
	sessions int // that each browser has by turns; 0: a new one for each request
}

// hello is a load of the cheapest page there is.
func hello(site *rig.Site, browsers int) *load {
	return &load{site: site, path: "/hello.php", want: "hello\n", browsers: browsers}
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

// browse sends one request after the other until the deadline, at least one.
func (l *load) browse(ctx context.Context, number int, deadline time.Time) (requests int, err error) {
	b, err := openBrowser(ctx, l.site)
	if err != nil {
		return 0, err
	}
	defer b.close()
	for requests == 0 || time.Now().Before(deadline) {
		n := requests
		if l.sessions > 0 {
			n %= l.sessions
		}
		body, err := b.get(l.path, fmt.Sprintf("load%03dx%018d", number, n))
		if err != nil {
			return requests, err
		}
		if string(body) != l.want {
			return requests, fmt.Errorf("get %s: got body %q, want %q", l.path, body, l.want)
		}
		requests++
	}
	return requests, nil
}
