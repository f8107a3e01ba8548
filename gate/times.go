package gate

import (
	"sync"
	"time"
)

// stage is the part of its life in which a request is.
type stage int

const (
	stageOther      stage = iota // its head is read, or its body is awaited
	stageSession                 // it waits for the lock of its session
	stageConnection              // it waits for a connection to PHP-FPM
	stagePHP                     // PHP-FPM has all of it
	stageOver                    // it has ended
)

func (s stage) String() string {
	return [...]string{"other", "session", "connection", "php", "over"}[s]
}

// Times are how long a request was in each of its stages. The time in which its body came is in none.
type Times struct {
	Session    time.Duration // it waited for the lock of its session
	Connection time.Duration // it waited for a connection to PHP-FPM
	// PHP is the time from the moment when PHP-FPM had all of the request to the end of its response. It includes a wait
	// in PHP-FPM's backlog, and the web server's time to take the response.
	PHP time.Duration
	// Queued and Sent tell a request that took no time in the last two stages from one that did not get there.
	Queued, Sent bool
}

// Total is how long the request took.
func (t *Times) Total() time.Duration { return t.Session + t.Connection + t.PHP }

// clock measures the Times of a request. Its methods may be called concurrently.
type clock struct {
	mu    sync.Mutex
	stage stage
	since time.Time // when the stage began
	times Times
}

// enter ends the stage before and begins s, unless s is the stage already. It returns when s began.
func (c *clock) enter(s stage) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage == s {
		return c.since
	}
	now := time.Now()
	c.times = c.timesAt(now)
	c.stage, c.since = s, now
	c.times.Queued = c.times.Queued || s == stageConnection
	c.times.Sent = c.times.Sent || s == stagePHP
	return now
}

// timesAt returns the times with that of the present stage. It is called with the mutex held.
func (c *clock) timesAt(now time.Time) Times {
	t, spent := c.times, now.Sub(c.since)
	switch c.stage {
	case stageSession:
		t.Session += spent
	case stageConnection:
		t.Connection += spent
	case stagePHP:
		t.PHP += spent
	}
	return t
}

// waited returns how long the request has waited for a connection. It is called when that wait has ended.
func (c *clock) waited() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.times.Connection
}

// stop ends the last stage, and returns the times.
func (c *clock) stop() Times {
	c.enter(stageOver)
	return c.times
}

// look calls f with the stage and the times so far if the request has taken limit: it does not end before f has
// returned, so f must be quick. Otherwise it returns how long the request has left until then; 0 if it has ended.
func (c *clock) look(limit time.Duration, f func(stage, Times)) (left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage == stageOver {
		return 0
	}
	t := c.timesAt(time.Now())
	if left := limit - t.Total(); left > 0 {
		return left
	}
	f(c.stage, t)
	return 0
}
