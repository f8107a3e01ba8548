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

// feed sends the locks to all who look on: on each change, but not more often than each feedPause, and each
// feedRefresh anyway. What is sent is made once for all, and only while somebody looks on. Who reads slowly misses
// what has changed meanwhile again.
type feed struct {
	admin *Admin

	mu      sync.Mutex
	streams int
	running bool
	event   []byte        // the newest; nil: none yet
	next    chan struct{} // closed when there is a newer one
}

const (
	feedPause   = 250 * time.Millisecond
	feedRefresh = 5 * time.Second
	// A look at very many waiters takes so long that looking should not be all that is done.
	feedShare = 20
)

func newFeed(a *Admin) *feed { return &feed{admin: a, next: make(chan struct{})} }

// serve streams events until the client goes, or reads nothing for too long.
func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	if !f.enter() {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open already", maxStreams))
		return
	}
	defer f.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	event, next := f.newest()
	for {
		if event != nil {
			c := http.NewResponseController(w)
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
		case <-f.admin.stop:
			return
		}
	}
}

// enter counts a stream in, and makes the feed run if it does not.
func (f *feed) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams == maxStreams {
		return false
	}
	f.streams++
	if !f.running {
		f.running, f.event = true, nil // the old one is too old
		go f.run()
	}
	return true
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams--
}

func (f *feed) newest() (event []byte, next <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.event, f.next
}

// run looks at the locks for as long as there are streams.
func (f *feed) run() {
	var last *LocksPage
	var sent time.Time
	for {
		start := time.Now()
		page := f.admin.locks(context.Background())
		publish := last == nil || !last.alike(page) || start.Sub(sent) >= feedRefresh
		if publish {
			last, sent = page, start
		}
		if !f.publish(page, publish) {
			return
		}
		time.Sleep(max(feedPause, feedShare*time.Since(start)))
	}
}

// publish makes page the newest event, if it is worth it. It says whether anybody is there.
func (f *feed) publish(page *LocksPage, worth bool) bool {
	var event []byte
	if worth {
		data, _ := json.Marshal(page)
		event = fmt.Appendf(nil, "event: locks\ndata: %s\n\n", data)
	}
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

// alike says whether q shows the same holders and waiters as p; they are older there.
func (p *LocksPage) alike(q *LocksPage) bool {
	return slices.EqualFunc(p.Locks, q.Locks, func(a, b Lock) bool {
		return a.Key == b.Key && a.Held == b.Held && a.Holder == b.Holder && a.Since == b.Since &&
			slices.EqualFunc(a.Waiters, b.Waiters, func(a, b Waiter) bool { return a.Request == b.Request && a.Since == b.Since })
	})
}
