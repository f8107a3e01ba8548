package sharedlock

import (
	"errors"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// doubt is a write whose result is unknown because its answer was lost. The server may do it much later: one that hung
// reads what was sent to it when it goes on.
type doubt struct {
	key    sessionlock.Key
	name   string
	value  []byte
	isLive func() bool // reports whether the item belongs to a held lease. It may wait until that is known
	looked time.Time   // when it was looked up; zero: not yet
}

// maxDoubts bounds what is remembered for one server. Beyond that, leases end by their TTL.
const maxDoubts = 4096

// recheckAfter is how long after the first look a doubt is looked up a second time.
const recheckAfter = time.Second

// inDoubt remembers a write whose answer was lost. sweep looks it up.
func (m *member) inDoubt(d doubt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.doubts) < maxDoubts {
		m.doubts = append(m.doubts, d)
	}
}

// sweep deletes what doubtful writes have left, if the server has an answer.
func (m *member) sweep() {
	m.mu.Lock()
	var due, later []doubt
	for _, d := range m.doubts {
		if d.looked.IsZero() || time.Since(d.looked) >= recheckAfter {
			due = append(due, d)
		} else {
			later = append(later, d)
		}
	}
	m.doubts = later
	m.mu.Unlock()
	if len(due) > 0 {
		m.background.Go(func() { m.resolve(due) })
	}
}

// resolve looks up doubtful writes, each in its turn among the requests for its lock. One that had no effect is looked
// up once more a second later, because the server may still do it; one whose lookup fails stays for the next sweep.
func (m *member) resolve(due []doubt) {
	for _, d := range due {
		t := m.newTicket(d.key)
		t.wait()
		over, err := m.removeStray(d)
		t.leave()
		if first := d.looked.IsZero(); !over && (first || err != nil) {
			if err == nil {
				d.looked = time.Now()
			}
			m.mu.Lock()
			m.doubts = append(m.doubts, d)
			m.mu.Unlock()
		}
	}
}

// removeStray deletes the item if it is there and no longer a lease of ours. It reports whether that is over: the item
// was there, and is not now.
func (m *member) removeStray(d doubt) (over bool, err error) {
	if d.isLive() {
		return false, errLive
	}
	items, err := m.Read(kv.LaneWrite, d.name)
	if err != nil {
		return false, err
	}
	if it := items[0]; sameValue(it, d.value) {
		err = m.Write(&kv.Item{Name: d.name, TTL: kv.Delete, Version: it.Version})
		return err == nil, err
	}
	return false, nil
}

var errLive = errors.New("the lease is held")
