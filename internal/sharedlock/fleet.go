package sharedlock

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// Hosts that differ about their servers, the order of these, the lease, the secret or a realm do not exclude each
// other, or not always, and no lock shows it. So each notes what it goes by in one item of each server, next to the
// epoch:
//
//	<stamp> <host> servers=<n> index=<i> quorum=<0 or 1> lease=<s> secret=<hash> realms=<gate>:<realm>,…
//
// a line for each set of settings, which any of the hosts that have them refreshes. The last two are encoded as in a
// URL's query. A line whose stamp has changed recently belongs to a live host; clocks are not compared.
const (
	fleetTTL     = 30 * time.Second       // of the item
	fleetRefresh = 2 * time.Second        // of a line
	fleetStale   = 10 * time.Second       // a line that was not refreshed for so long is dropped
	fleetSettle  = 300 * time.Millisecond // a reload may take so long
	maxFleet     = 16                     // lines
	maxRealms    = 512                    // bytes
)

// note is one line.
type note struct {
	stamp, host string
	settings    string // the rest of the line
}

// parseFleet reads the notes. What it does not understand it leaves out.
func parseFleet(it *kv.Item) (notes []note) {
	if it == nil {
		return nil
	}
	for line := range strings.Lines(string(it.Value)) {
		words := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if len(words) == 3 && len(notes) < maxFleet {
			host, _ := url.QueryUnescape(words[1])
			notes = append(notes, note{words[0], host, words[2]})
		}
	}
	return notes
}

// stampsOf are the stamps by their settings.
func stampsOf(it *kv.Item) map[string]string {
	stamps := make(map[string]string)
	for _, n := range parseFleet(it) {
		stamps[n.settings] = n.stamp
	}
	return stamps
}

func (n note) String() string { return n.stamp + " " + url.QueryEscape(n.host) + " " + n.settings }

// differ says how another host's settings differ from ours, "" if not in what matters.
func (n note) differ(other note) string {
	here, there := n.words(), other.words()
	var how []string
	for _, field := range []struct{ key, text string }{
		{"servers", "number of servers"}, {"index", "this server's place in the order of servers"}, {"quorum", "quorum"},
		{"lease", "lease in seconds"}, {"secret", "secret, by its hash"},
	} {
		if a, b := here[field.key], there[field.key]; a != b && b != "" {
			how = append(how, fmt.Sprintf("%s: %s here, %s there", field.text, a, b))
		}
	}
	ours, theirs := realmsOf(here["realms"]), realmsOf(there["realms"])
	for _, gate := range slices.Sorted(maps.Keys(ours)) {
		if realm, both := theirs[gate]; both && realm != ours[gate] {
			how = append(how, fmt.Sprintf("realm of gate %q: %q here, %q there", gate, ours[gate], realm))
		}
	}
	return strings.Join(how, "; ")
}

func (n note) words() map[string]string {
	words := make(map[string]string)
	for word := range strings.FieldsSeq(n.settings) {
		key, value, _ := strings.Cut(word, "=")
		words[key] = value
	}
	return words
}

// realmsText are the realms as a note has them. Those that are too many are left out.
func realmsText(realms map[string]string) string {
	var b strings.Builder
	for _, gate := range slices.Sorted(maps.Keys(realms)) {
		pair := url.QueryEscape(gate) + ":" + url.QueryEscape(realms[gate])
		if b.Len()+len(pair) >= maxRealms {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pair)
	}
	return b.String()
}

func realmsOf(text string) map[string]string {
	realms := make(map[string]string)
	for pair := range strings.SplitSeq(text, ",") {
		gate, realm, ok := strings.Cut(pair, ":")
		gate, err := url.QueryUnescape(gate)
		realm, err2 := url.QueryUnescape(realm)
		if ok && err == nil && err2 == nil {
			realms[gate] = realm
		}
	}
	return realms
}

// fleetWatch compares the notes on one server with our own.
type fleetWatch struct {
	*cluster
	member  *member
	index   int // of the server
	retired *atomic.Bool
	secret  string

	// In the hands of the watcher.
	seen     map[string]*sighting // by their settings
	reported map[string]bool      // by what was reported
	refresh  time.Duration
	differ   int // notes that differ
}

// sighting is what was seen of a note.
type sighting struct {
	stamp   string
	changed time.Time // when the stamp was seen to have changed, or the note was first seen
	alive   time.Time // since when it has been refreshed; zero: not at all, so far
}

func newFleetWatch(c *cluster, index int, retired *atomic.Bool) *fleetWatch {
	return &fleetWatch{
		cluster: c, index: index, retired: retired, secret: secretHash(c.options.Secret),
		reported: make(map[string]bool), refresh: fleetRefresh,
	}
}

// secretHash tells secrets apart and no more.
func secretHash(secret []byte) string {
	if len(secret) == 0 {
		return "none"
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("fpm-gate fleet"))
	return fmt.Sprintf("%x", mac.Sum(nil)[:4])
}

// own is our note.
func (f *fleetWatch) own() note {
	quorum := 0
	if f.options.Quorum {
		quorum = 1
	}
	return note{
		stamp: strconv.FormatInt(time.Now().UnixMilli(), 10),
		host:  f.options.Host,
		settings: fmt.Sprintf("servers=%d index=%d quorum=%d lease=%d secret=%s realms=%s", len(f.members), f.index,
			quorum, f.options.Lease/time.Second, f.secret, realmsText(f.label.Load().realms)),
	}
}

// beat is part of a heartbeat, which has read the notes: it compares, and returns them with our own note refreshed, nil
// if another host has done that.
func (f *fleetWatch) beat(it *kv.Item) *kv.Item {
	notes := parseFleet(it)
	f.look(notes, time.Now())
	own := f.own()
	if f.retired.Load() {
		return nil
	}
	f.compare(own, notes)
	if s := f.seen[own.settings]; s != nil && time.Since(s.changed) < f.refresh {
		return nil
	}
	f.refresh = fleetRefresh + rand.N(fleetRefresh/4) // so that one of many does
	return f.write(it, own, notes)
}

// look notes which of the notes are refreshed. Those that are there at first may be of hosts that are not.
func (f *fleetWatch) look(notes []note, now time.Time) {
	before := f.seen
	f.seen = make(map[string]*sighting, len(notes))
	for _, n := range notes {
		s := before[n.settings]
		switch {
		case s == nil:
			s = &sighting{stamp: n.stamp, changed: now}
			if before != nil {
				s.alive = now
			}
		case s.stamp != n.stamp:
			s.stamp, s.changed = n.stamp, now
			if s.alive.IsZero() {
				s.alive = now
			}
		case now.Sub(s.changed) > fleetStale:
			s.alive = time.Time{}
		}
		f.seen[n.settings] = s
	}
}

// compare reports each difference once, and when there is none any longer.
func (f *fleetWatch) compare(own note, notes []note) {
	n := 0
	for _, other := range notes {
		how := own.differ(other)
		if s := f.seen[other.settings]; how == "" || s.alive.IsZero() || time.Since(s.alive) < fleetSettle {
			continue
		}
		n++
		if !f.reported[how] {
			f.reported[how] = true
			err := fmt.Errorf("%s (there is host %s)", how, other.host)
			f.tell(Event{Kind: FleetDiffers, Server: f.member.Name(), Err: err})
		}
	}
	before := f.differ
	f.differ = n
	f.member.Count(func(s *kv.ServerStats) { s.Disagree = n })
	if n == 0 && before > 0 {
		clear(f.reported)
		f.tell(Event{Kind: FleetAgrees, Server: f.member.Name()})
	}
}

// write is the notes with ours, without those that have not been refreshed for long. If another host has written them
// meanwhile, the next heartbeat is early enough.
func (f *fleetWatch) write(old *kv.Item, own note, notes []note) *kv.Item {
	lines := []string{own.String()}
	for _, n := range notes {
		s := f.seen[n.settings]
		if n.settings != own.settings && time.Since(s.changed) <= fleetStale && len(lines) < maxFleet {
			lines = append(lines, n.String())
		}
	}
	it := &kv.Item{Name: f.options.NotesName(), Value: []byte(strings.Join(lines, "\n")), TTL: fleetTTL}
	if old != nil {
		it.Version = old.Version
	}
	return it
}

// NotesWithin is the time in which a host that is alive refreshes its note, on a busy machine too.
const NotesWithin = 2 * fleetRefresh

// NotesName is the name of the item with what hosts have noted.
func (o *Options) NotesName() string { return o.Prefix + "fleet" }

// Disagreements are the differences between what this host would note on one of so many servers, and what hosts have
// noted that were alive between two readings of the notes, NotesWithin apart.
func (o *Options) Disagreements(servers, index int, before, after *kv.Item) (how []string) {
	c := &cluster{options: *o, members: make([]*member, servers)} // which are only counted
	c.label.Store(&label{o.Gate, o.Realms})
	own, first := newFleetWatch(c, index, nil).own(), stampsOf(before)
	for _, n := range parseFleet(after) {
		if stamp, old := first[n.settings]; old && stamp == n.stamp {
			continue
		}
		if differ := own.differ(n); differ != "" {
			how = append(how, fmt.Sprintf("host %s keeps the same locks in another way: %s", n.host, differ))
		}
	}
	return how
}
