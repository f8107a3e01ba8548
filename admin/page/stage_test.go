package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// stage plays a gate's admin for the page: what a test sets is what the gate tells.
type stage struct {
	*httptest.Server

	mu      sync.Mutex
	picture picture
	history string
	why     string        // the JSON of GET /locks/{key}/why
	broken  []string      // keys that the page wanted to break, each with its header
	pauses  []string      // what the page wanted of /pause, each with its header
	deaf    bool          // every answer is status 503
	refusal string        // of the next break or pause
	garbage string        // is sent instead of the picture
	changed chan struct{} // closed when there is something new
}

// The JSON of GET /locks, as package admin has it.
type (
	picture struct {
		At    time.Time `json:"at"`
		Host  string    `json:"host"`
		Locks []lock    `json:"locks"`

		Pause    *pauses  `json:"pause,omitempty"`
		Warnings []string `json:"warnings,omitempty"`
	}
	pauses struct {
		Gates []pause `json:"gates"`
	}
	pause struct {
		Gate    string    `json:"gate"`
		Paused  bool      `json:"paused"`
		Since   time.Time `json:"since,omitzero"`
		Until   time.Time `json:"until,omitzero"`
		Waiting int       `json:"waiting"`
		Running int       `json:"running"`
	}
	lock struct {
		Key     string    `json:"key"`
		Realm   string    `json:"realm"`
		Gate    string    `json:"gate"`
		Held    bool      `json:"held"`
		Holder  request   `json:"holder"`
		Since   time.Time `json:"since,omitzero"`
		Expires time.Time `json:"expires,omitzero"`
		HeldMS  int64     `json:"held_ms"`
		Waiters []waiter  `json:"waiters"`
	}
	request struct {
		Gate   string `json:"gate"`
		Route  string `json:"route"`
		Method string `json:"method"`
		Path   string `json:"path"`
		Script string `json:"script"`
		Host   string `json:"host,omitempty"`
	}
	waiter struct {
		request
		Since    time.Time `json:"since"`
		WaitedMS int64     `json:"waited_ms"`
	}
)

func newStage(t testing.TB) *stage {
	s := &stage{picture: picture{Host: "web-1"}, history: `{"scripts":[],"waits":[]}`, why: `{"worker":null,"problem":"the helper is away"}`, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("/", Handler())
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprint(w, s.history)
	})
	mux.HandleFunc("DELETE /locks/{key}", s.breakLock)
	mux.HandleFunc("/pause", s.pause)
	mux.HandleFunc("GET /locks/{key}/why", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprint(w, s.why)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isDeaf() && r.URL.Path == "/events" {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s
}

// tell makes something else true, and tells the page.
func (s *stage) tell(change func(p *picture)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.picture)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) isDeaf() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaf
}

// lose breaks the page's connection, and answers no new one until it hears again.
func (s *stage) lose(deaf bool) {
	s.mu.Lock()
	s.deaf = deaf
	s.mu.Unlock()
	if deaf {
		s.CloseClientConnections()
	}
}

func (s *stage) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		event, changed := s.event()
		fmt.Fprintf(w, "event: locks\ndata: %s\n\n", event)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
			return
		}
	}
}

func (s *stage) event() ([]byte, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.garbage != "" {
		return []byte(s.garbage), s.changed
	}
	p := s.picture
	p.At = time.Now()
	p.Locks = slices.Clone(p.Locks)
	for i := range p.Locks {
		l := &p.Locks[i]
		if !l.Since.IsZero() {
			l.HeldMS = p.At.Sub(l.Since).Milliseconds()
		}
		l.Waiters = slices.Clone(l.Waiters)
		for j := range l.Waiters {
			l.Waiters[j].WaitedMS = p.At.Sub(l.Waiters[j].Since).Milliseconds()
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return text, s.changed
}

func (s *stage) breakLock(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, query := r.PathValue("key"), r.URL.Query()
	did := "break"
	if query.Get("terminate") == "true" {
		did = "end the script of"
	}
	since, err := time.Parse(time.RFC3339Nano, query.Get("since"))
	if !slices.ContainsFunc(s.picture.Locks, func(l lock) bool { return l.Key == key && l.Since.Equal(since) }) {
		did = fmt.Sprintf("%v, which is not shown (%v): %s", since, err, did)
	}
	s.broken = append(s.broken, did+" "+key+", X-FPM-Gate: "+r.Header.Get("X-FPM-Gate"))
	if s.refusal != "" {
		http.Error(w, s.refusal, http.StatusInternalServerError)
		s.refusal = ""
		return
	}
	fmt.Fprint(w, `{"ended_by":"limit"}`)
}

func (s *stage) breaks() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.broken)
}

// pause plays the two gates www, which may be paused, and shop.
func (s *stage) pause(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodGet {
		s.pauses = append(s.pauses, fmt.Sprintf("%s %s X-FPM-Gate: %s", r.Method, r.URL.RawQuery, r.Header.Get("X-FPM-Gate")))
		if s.refusal != "" {
			http.Error(w, s.refusal, http.StatusConflict)
			s.refusal = ""
			return
		}
	}
	page := pauses{[]pause{{Gate: "www", Running: 3}, {Gate: "shop"}}}
	if p := s.picture.Pause; p != nil {
		page.Gates[0] = p.Gates[0]
	}
	_ = json.NewEncoder(w).Encode(page)
}

func (s *stage) paused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pauses)
}

// ago is a time that the gate tells.
func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

// newRequest returns a request of the gate www for a script.
func newRequest(method, path string) request {
	return request{Gate: "www", Method: method, Path: path, Script: "/srv/www/public" + path, Host: "web-1"}
}

// held returns a lock that r has held for d, with its waiters.
func held(key string, r request, d time.Duration, waiters ...waiter) lock {
	return lock{
		Key: (key + "0123456789abcdef0123456789abcdef")[:32], Realm: "www", Gate: r.Gate, Held: r.Host == "web-1", Holder: r,
		Since: ago(d), Expires: ago(d - time.Minute), Waiters: waiters,
	}
}

func waits(r request, d time.Duration) waiter {
	r.Host = ""
	return waiter{request: r, Since: ago(d)}
}
