package memcached

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// grace is how long a server that may have lost its items takes no new claims: until all of its users have seen it,
// which takes a redial or a heartbeat, and have added theirs again.
const grace = time.Second

// epochs is what is known of a server's epoch, an item that only a restart or flush removes.
type epochs struct {
	name    string              // of the item
	onLost  func()              // is called when all items may have been lost
	onBegun func()              // is called when there is an epoch again, after a time without one
	onSplit func(now time.Time) // is called when there are several servers

	mu      sync.Mutex
	current string    // "": unknown, or there is none
	met     bool      // current was once known
	contact time.Time // when the current one was last sent for and seen
	grace   time.Time // no new claims before
	losses  uint64
	orphan  time.Time   // contact of the one before: until then nothing was lost
	past    []pastEpoch // the last ones, for as long as they say something
}

type pastEpoch struct {
	epoch string
	left  time.Time
}

// An epoch never comes back: if one does, there are several servers at the address, each with items of its own. Such
// an address is down, and tried again after a while.
const (
	pastFor   = time.Minute
	splitRest = time.Minute
)

var errSplit = errors.New("several memcached answer at this address, such as by a name with several addresses")

// check compares the epoch as it was read, or begins a new one. The error is kv.ErrEpoch if it is not the one that
// we know.
func (e *epochs) check(c *wire, asked time.Time, read *kv.Item) error {
	if read != nil {
		return e.observe(string(read.Value), asked)
	}
	epoch := newEpoch()
	err := c.write(&kv.Item{Name: e.name, Value: []byte(epoch)})
	if errors.Is(err, kv.ErrExists) {
		var items []*kv.Item
		if items, err = c.get(e.name); err == nil && items[0] != nil {
			epoch = string(items[0].Value)
		}
	}
	if err != nil {
		return fmt.Errorf("begin an epoch: %w", err)
	}
	return e.observe(epoch, asked)
}

// newEpoch is the Unix time in milliseconds, and a random word that tells it from all others.
func newEpoch() string { return fmt.Sprintf("%d %s", time.Now().UnixMilli(), rand.Text()) }

// isYoung reports whether an epoch that we never met began just now. Where the clocks of two hosts differ by more than
// the grace, it guesses wrong.
func isYoung(epoch string) bool {
	word, _, _ := strings.Cut(epoch, " ")
	began, err := strconv.ParseInt(word, 10, 64)
	return err == nil && time.Since(time.UnixMilli(began)).Abs() < grace
}

// observe compares an epoch of the server, "" if it has none, with the one that we know. asked is when it was sent for.
// The error is kv.ErrEpoch if a grace has begun, and errSplit if there are several servers.
func (e *epochs) observe(epoch string, asked time.Time) error {
	e.mu.Lock()
	now := time.Now()
	if e.isLate(epoch, asked) {
		e.mu.Unlock()
		return kv.ErrEpoch
	}
	lost := e.met && epoch != e.current && e.current != ""  // else it was noticed when there was none
	begun := e.met && epoch != e.current && e.current == "" // one in between may be lost as well
	begins := lost || begun || !e.met && isYoung(epoch)
	split := false
	if lost {
		split = e.leave(epoch, now)
	}
	switch {
	case split:
		e.grace = time.Time{} // it grants nothing, for another reason
	case begins:
		e.grace = now.Add(grace)
	}
	if e.current, e.met = epoch, true; epoch != "" && asked.After(e.contact) {
		e.contact = asked
	}
	e.mu.Unlock()
	switch {
	case split:
		e.onSplit(now)
		return errSplit
	case lost:
		e.onLost()
	case begun:
		e.onBegun()
	}
	if begins {
		return kv.ErrEpoch
	}
	return nil
}

// isLate reports whether epoch is one that had gone, in an answer that may have been given before.
func (e *epochs) isLate(epoch string, asked time.Time) bool {
	return epoch != e.current && slices.ContainsFunc(e.past, func(p pastEpoch) bool {
		return p.epoch == epoch && asked.Before(p.left)
	})
}

// leave notes that the current epoch has gone for next, and reports whether next had gone before.
func (e *epochs) leave(next string, now time.Time) (split bool) {
	e.losses++
	e.orphan = e.contact
	e.past = slices.DeleteFunc(e.past, func(p pastEpoch) bool { return now.Sub(p.left) > pastFor })
	split = slices.ContainsFunc(e.past, func(p pastEpoch) bool { return p.epoch == next })
	e.past = append(e.past, pastEpoch{e.current, now})
	return split
}

// matches reports whether the server has the epoch that we know, as far as was read with other items, which were sent
// for at asked. If it has not, a grace begins.
func (e *epochs) matches(epoch *kv.Item, asked time.Time) bool {
	if epoch == nil {
		_ = e.observe("", asked)
		return false
	}
	return e.observe(string(epoch.Value), asked) == nil
}

// report adds what is known to a kv.State. What is missing was just lost if that is so short a time ago that none of
// the server's users can have made a new claim on it: each of them lets a grace pass, which begins when the loss is
// noticed.
func (e *epochs) report(s *kv.State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.GraceEnds, s.Losses = e.grace, e.losses
	s.JustLost = e.losses > 0 && time.Since(e.orphan) < grace
}
