package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// feed streams the locks to clients: on each change, but at most once per feedPause, and at least once per
// feedRefresh. An event is built once for all clients, and only while there are any. A slow client skips events: it
// gets the newest one when it is ready.
type feed struct {
	look func(context.Context) *LocksPage
	stop <-chan struct{} // closed to end the streams

	mu      sync.Mutex
	streams int
	running bool
	event   []byte        // the newest event; nil: none yet
	next    chan struct{} // closed when there is a newer event
}

const (
	feedPause   = 250 * time.Millisecond
	feedRefresh = 5 * time.Second
	// A look at very many waiters takes long. The pause after it is at least feedShare times as long, so that the feed
	// takes no more than a twentieth of a processor.
	feedShare = 20
)

func newFeed(look func(context.Context) *LocksPage, stop <-chan struct{}) *feed {
	return &feed{look: look, stop: stop, next: make(chan struct{})}
}

// serve streams events until the client disconnects, or has read nothing for sendTimeout.
func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	if !f.enter() {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("all %d event streams are in use; retry later", maxStreams))
		return
	}
	defer f.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	event, next := f.newest()
	for {
		if event != nil {
			c := http.NewResponseController(w)
			// A client that does not read must not keep the stream, of which there are only maxStreams.
			_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
			if _, err := w.Write(event); err != nil || c.Flush() != nil {
				return
			}
		}
		select {
		case <-next:
			event, next = f.newest()
		case <-r.Context().Done():
			return
		case <-f.stop:
			return
		}
	}
}

// enter adds a stream and starts run if it is not running. It reports whether there was room.
func (f *feed) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams == maxStreams {
		return false
	}
	f.streams++
	if !f.running {
		f.running, f.event = true, nil // an event from before the pause is stale
		go f.run()
	}
	return true
}

// leave ends a stream. run notices by itself that there are none left.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams--
}

// newest returns the newest event, and the channel that is closed when there is a newer one. Both belong together: no
// event is missed between the two.
func (f *feed) newest() (event []byte, next <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.event, f.next
}

// run publishes the locks as long as there are streams.
func (f *feed) run() {
	var last *LocksPage
	var sent time.Time
	for {
		start := time.Now()
		page := f.look(context.Background())
		var event []byte
		if last == nil || !last.alike(page) || start.Sub(sent) >= feedRefresh {
			last, sent = page, start
			data, _ := json.Marshal(page)
			event = fmt.Appendf(nil, "event: locks\ndata: %s\n\n", data)
		}
		if !f.publish(event) {
			return
		}
		time.Sleep(max(feedPause, feedShare*time.Since(start)))
	}
}

// publish hands the streams a new event; nil: there is none. It reports whether there are still streams. If not, run
// must return: the next stream starts it again.
func (f *feed) publish(event []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if event != nil {
		f.event = event
		close(f.next)
		f.next = make(chan struct{})
	}
	f.running = f.streams > 0
	return f.running
}

// alike reports whether q shows the same holders, waiters, pauses and warnings as p, whatever their ages. Ages differ
// at each look, and the page counts them on by itself.
func (p *LocksPage) alike(q *LocksPage) bool {
	return slices.Equal(p.Warnings, q.Warnings) && p.Pause.alike(q.Pause) &&
		slices.EqualFunc(p.Locks, q.Locks, func(a, b Lock) bool {
			return a.Key == b.Key && a.Held == b.Held && a.Holder == b.Holder && a.Since == b.Since &&
				slices.EqualFunc(a.Waiters, b.Waiters, func(a, b Waiter) bool {
					return a.Request == b.Request && a.Since == b.Since
				})
		})
}
