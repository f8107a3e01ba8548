package demo

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// site answers a visitor without any network.
type site func(*http.Request) (status int, body string)

func (s site) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := s(r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func visitorOf(s site) *visitor {
	return &visitor{site: "http://site", client: &http.Client{Transport: s}}
}

func TestUntilWorksTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		v := visitorOf(func(*http.Request) (int, string) {
			time.Sleep(100 * time.Millisecond)
			if tries++; tries < 3 {
				return http.StatusServiceUnavailable, "try again"
			}
			return http.StatusOK, "1\n"
		})
		// Three answers, with two pauses of a second between them.
		if got, want := v.untilWorks(t.Context()), (Wait{Took: 2300, Done: true}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestUntilWorksGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := visitorOf(func(r *http.Request) (int, string) {
			<-r.Context().Done()
			return 0, ""
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if got, want := v.untilWorks(ctx), (Wait{Took: 20000}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestCountReadsTheCounter(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		body    string
		want    int
		wantErr bool
	}{
		{"a number", 200, "41\n", 41, false},
		{"a warning of PHP's", 200, "<br />\n<b>Warning</b>", 0, true},
		{"an error", 502, "41\n", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := visitorOf(func(*http.Request) (int, string) { return c.status, c.body }).count(t.Context())
			if got != c.want || (err != nil) != c.wantErr {
				t.Errorf("got %d and error %v, want %d and an error: %v", got, err, c.want, c.wantErr)
			}
		})
	}
}

// A browser that reloads closes its connections: the web server has to see it.
func TestReloadHangsUpOnAllButTheLast(t *testing.T) {
	const times = 5
	var came, hungUp atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		if r.Header.Get("Last") != "" {
			io.WriteString(w, "the page")
			return
		}
		<-r.Context().Done()
		hungUp.Add(1)
	}))
	v := &visitor{site: s.URL, client: newClient()}
	transport := v.client.Transport
	v.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Context() == t.Context() { // all others have contexts that end
			r.Header.Set("Last", "yes")
		}
		return transport.RoundTrip(r)
	})
	got := v.reload(t.Context(), "/", times, 20*time.Millisecond)
	transport.(*http.Transport).CloseIdleConnections()
	s.Close() // waits for the handlers
	if got.status != http.StatusOK || got.body != "the page" {
		t.Errorf("got status %d and %q, want the page", got.status, got.body)
	}
	// On a slow machine a reload may be over before its request is on its way.
	if came, hungUp := came.Load(), hungUp.Load(); came > times+1 || hungUp != came-1 {
		t.Errorf("%d requests came and %d hung up, want all but the last", came, hungUp)
	}
}

// roundTripper is a function that sends requests.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNewVisitorNeedsASession(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "no cookie\n") }))
	defer s.Close()
	if v, err := newVisitor(t.Context(), &side{url: s.URL}); err == nil {
		t.Errorf("got %+v of a site that gave no session", v)
	}
}
