package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// visitor is a browser with a session.
type visitor struct {
	site   string
	cookie *http.Cookie
	client *http.Client
}

// answer is what a visitor got.
type answer struct {
	status int // 0: none, or one that broke off
	body   string
	took   time.Duration
}

// newClient returns a client that opens as many connections as it needs, and keeps them.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}}
}

// newVisitor visits a page that makes a session; its counter is 1 then.
func newVisitor(ctx context.Context, sd *side) (*visitor, error) {
	v := &visitor{site: sd.url, client: newClient()}
	resp, err := v.request(ctx, workPage(0))
	if err != nil {
		return nil, fmt.Errorf("make a session: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("make a session: %w", err)
	}
	for _, c := range resp.Cookies() {
		v.cookie = c
	}
	if v.cookie == nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("make a session: PHP answered %s and %q", resp.Status, firstLine(string(body)))
	}
	return v, nil
}

// workPage is a page that increments the counter of its session, which it holds for d.
func workPage(d time.Duration) string { return fmt.Sprintf("/work.php?ms=%d", d.Milliseconds()) }

// countPage is a page that shows the counter, helloPage one that needs no session.
const (
	countPage = "/count.php"
	helloPage = "/hello.php"
)

func (v *visitor) request(ctx context.Context, page string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.site+page, nil)
	if err != nil {
		return nil, err
	}
	if v.cookie != nil {
		r.AddCookie(v.cookie)
	}
	return v.client.Do(r)
}

// get visits a page. When ctx ends the browser closes the connection.
func (v *visitor) get(ctx context.Context, page string) answer {
	asked := time.Now()
	resp, err := v.request(ctx, page)
	if err != nil {
		return answer{took: time.Since(asked)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, body: string(body), took: time.Since(asked)}
	if err != nil {
		a.status = 0
	}
	return a
}

// getAll visits a page n times at once.
func (v *visitor) getAll(ctx context.Context, n int, page string) []answer {
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = v.get(ctx, page) })
	}
	all.Wait()
	return answers
}

// count is the counter of the visitor's session.
func (v *visitor) count(ctx context.Context) (n int, err error) {
	a := v.get(ctx, countPage)
	if a.status != http.StatusOK {
		return 0, fmt.Errorf("read the session's counter: status %d: %s", a.status, firstLine(a.body))
	}
	if _, err := fmt.Sscan(a.body, &n); err != nil {
		return 0, fmt.Errorf("read the session's counter: got %q", firstLine(a.body))
	}
	return n, nil
}

// untilWorks requests a page until it succeeds, with a pause of a second after each other answer. It gives up when ctx
// ends.
func (v *visitor) untilWorks(ctx context.Context) Wait {
	asked := time.Now()
	for ctx.Err() == nil {
		a := v.get(ctx, workPage(0))
		if a.status == http.StatusOK {
			return Wait{millis(time.Since(asked)), true}
		}
		pause(ctx, time.Second)
	}
	return Wait{Took: millis(time.Since(asked))}
}

// leave closes the connections that the visitor has kept.
func (v *visitor) leave() { v.client.CloseIdleConnections() }

// pause waits, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// inParallel runs all at once, and waits for all.
func inParallel(all ...func() error) error {
	errs := make([]error, len(all))
	var running sync.WaitGroup
	for i, run := range all {
		running.Go(func() { errs[i] = run() })
	}
	running.Wait()
	return errors.Join(errs...)
}
