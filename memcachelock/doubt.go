package memcachelock

import (
	"errors"
	"time"
)

// doubt is a write whose result is unknown because its answer was lost. The server may execute it much later: one that
// hung reads what was sent to it when it goes on.
type doubt struct {
	lease  *lease
	looked time.Time // when it was looked up; zero: not yet
}

// maxDoubts bounds what is remembered. Beyond that, leases end by their TTL.
const maxDoubts = 4096

// recheckAfter is how long after the first look a doubt is looked up a second time.
const recheckAfter = time.Second

func (m *member) inDoubt(l *lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.doubts) < maxDoubts {
		m.doubts = append(m.doubts, doubt{lease: l})
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
		m.store.background.Go(func() { m.resolve(due) })
	}
}

func (m *member) resolve(due []doubt) {
	for _, d := range due {
		t := m.newTicket(d.lease.key)
		t.wait()
		r := replica{lease: d.lease, member: m}
		over, err := r.removeStray()
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
func (r *replica) removeStray() (over bool, err error) {
	l, m := r.lease, r.member
	<-l.decided
	if l.won && !l.isReleased() {
		return false, errLive
	}
	items, err := m.get(m.releases, l.name)
	if err != nil {
		return false, err
	}
	it := items[l.name]
	if !sameValue(it, l.value) {
		return false, nil
	}
	err = m.write(m.releases, &item{name: l.name, seconds: deleteNow, casID: it.casID})
	return err == nil, err
}

var errLive = errors.New("the lease is held")
