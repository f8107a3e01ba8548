package sessionwatch

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script is what PHP does with a session, done by the test.
type script struct {
	t    *testing.T
	path string
	file *os.File
}

func (s *script) open() {
	s.t.Helper()
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	s.file = f
}

func (s *script) close() {
	s.t.Helper()
	if err := s.file.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// watched is a watch, with how often it has called.
type watched struct {
	Watch
	calls, losses atomic.Int32
}

func watch(f Watcher, id string) *watched {
	w := new(watched)
	w.Watch = f.Watch([]byte(id), w.changed)
	return w
}

func watchOpen(f Watcher, id string) *watched {
	w := new(watched)
	w.Watch = f.WatchOpen([]byte(id), w.changed)
	return w
}

func (w *watched) changed(s State) {
	if s == Closed {
		w.calls.Add(1)
	} else {
		w.losses.Add(1)
	}
}

// want fails unless the watch is in that state, and has called if it is Closed.
func (w *watched) want(t *testing.T, want State) {
	t.Helper()
	if got := w.State(); got != want {
		t.Errorf("state: got %d, want %d", got, want)
	}
	calls := int32(0)
	if want == Closed {
		calls = 1
	}
	if got := w.calls.Load(); got != calls {
		t.Errorf("called %d times, want %d", got, calls)
	}
}

func newFiles(t *testing.T, report func(string, error)) *Files {
	t.Helper()
	f := NewFiles(report)
	t.Cleanup(f.Close)
	return f
}

// newFolder watches a folder of the test's own.
func newFolder(t *testing.T) (*Folder, string) {
	t.Helper()
	dir := t.TempDir()
	return newFiles(t, nil).Folder(dir, 0), dir
}

func scriptOf(t *testing.T, dir, id string) *script {
	return &script{t: t, path: filepath.Join(dir, "sess_"+id)}
}

func TestASessionIsSeenFromOpenToClosed(t *testing.T) {
	f, dir := newFolder(t)
	php, other := scriptOf(t, dir, "Abc"), scriptOf(t, dir, "abc")
	w := watch(f, "Abc")
	w.want(t, Unseen)
	other.open() // another session, as session ids go
	w.want(t, Unseen)
	php.open()
	w.want(t, Open)
	other.close()
	w.want(t, Open)
	php.close()
	w.want(t, Closed)
	php.open()
	php.close() // a second session_start
	w.want(t, Closed)
	w.Stop()
	w.Stop()
}

func TestAScriptOutOfTurnIsWaitedForOnce(t *testing.T) {
	f, dir := newFolder(t)
	late, own := scriptOf(t, dir, "a"), scriptOf(t, dir, "a")
	gaveAway, holder := watch(f, "a"), watch(f, "a")
	late.open()
	holder.want(t, Open)
	own.open() // and waits in PHP
	late.close()
	gaveAway.want(t, Closed)
	holder.want(t, Closed) // nothing shows whose close it was: better too early
	next := watch(f, "a")
	next.want(t, Unopened)
	own.close() // it has been open since before
	next.want(t, Unopened)
	own.open()
	own.close()
	next.want(t, Closed)
}

// The kernel merges identical events that have not been read.
func TestNoWatchIsLeftOpenByEventsThatBecomeOne(t *testing.T) {
	f, dir := newFolder(t)
	one, two := scriptOf(t, dir, "a"), scriptOf(t, dir, "a")
	keeper, holder := watch(f, "a"), watch(f, "a")
	f.files.mu.Lock() // no read
	one.open()
	two.open()
	one.close()
	two.close()
	f.files.mu.Unlock()
	holder.want(t, Closed)
	next := watch(f, "a")
	next.want(t, Unopened)
	f.files.mu.Lock()
	one.open()
	one.close()
	f.files.mu.Unlock()
	next.want(t, Closed)
	keeper.want(t, Closed)
}

func TestEventsFromBeforeAreOfNoWatch(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	one := watch(f, "a")
	for range 100 {
		php.open()
		php.close()
		two := watch(f, "a")
		two.want(t, Unopened)
		two.Stop()
	}
	one.want(t, Closed)
}

func TestAnUnlinkedSessionIsClosed(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	w := watch(f, "a")
	php.open()
	if err := os.Remove(php.path); err != nil {
		t.Fatal(err)
	}
	w.want(t, Open)
	php.close()
	w.want(t, Closed)
}

// TestDestroyedSessionIsSeen closes before it deletes, as PHP's handler does.
func TestDestroyedSessionIsSeen(t *testing.T) {
	f, dir := newFolder(t)
	one, other := scriptOf(t, dir, "one"), scriptOf(t, dir, "other")
	w, w2 := watch(f, "one"), watch(f, "other")
	for _, s := range []*script{one, other} {
		s.open()
		s.close()
	}
	if w.Destroyed() || w2.Destroyed() {
		t.Error("a session that was closed is taken for destroyed")
	}
	if err := os.Remove(one.path); err != nil {
		t.Fatal(err)
	}
	if !w.Destroyed() || w2.Destroyed() {
		t.Errorf("got %t and %t, want that the first is destroyed", w.Destroyed(), w2.Destroyed())
	}
	w.Stop()
	if !w.Destroyed() {
		t.Error("it is forgotten when the watch is stopped")
	}
}

func TestAPresumedSessionIsClosedByTheNextClose(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "new")
	php.open()
	f.files.mu.Lock()
	f.files.drain()
	f.files.seen.forget() // there were too many others
	f.files.mu.Unlock()
	w := watchOpen(f, "new")
	w.want(t, Presumed)
	php.close()
	w.want(t, Closed)
}

func TestAWatchThatIsWantedIsCalledAtOnce(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	called := make(chan struct{})
	w := f.Watch([]byte("a"), func(State) { close(called) })
	php.open()
	w.Prioritize()
	w.Prioritize()
	php.close()
	wantSoon(t, called)
	w.Stop()
	if got := f.files.wanted; got != 0 {
		t.Errorf("%d watches are still wanted", got)
	}
}

func TestAWatchThatIsNotWantedIsCalledSoonEnough(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	called := make(chan struct{})
	f.Watch([]byte("a"), func(State) { close(called) })
	php.open()
	php.close()
	wantSoon(t, called)
}

func wantSoon(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("it never came")
	}
}

func TestStoppedWatchesLeaveNoTrace(t *testing.T) {
	f, dir := newFolder(t)
	one, two := watch(f, "a"), watch(f, "a")
	two.Prioritize()
	one.Stop()
	two.Stop()
	php := scriptOf(t, dir, "a")
	php.open()
	php.close()
	f.files.mu.Lock()
	defer f.files.mu.Unlock()
	f.files.drain()
	for _, d := range f.files.dirs {
		if n := len(d.sessions); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	}
	if one.calls.Load()+two.calls.Load() != 0 {
		t.Error("a watch that was stopped has called")
	}
}

func TestAfterAnOverflowOnlyNewWatchesAreTrusted(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	old := watch(f, "a")
	php.open()
	old.want(t, Open)
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	f.files.mu.Lock() // no read in the meantime
	other := scriptOf(t, dir, "other")
	for range atoi(limit) {
		other.open()
		other.close()
	}
	f.files.mu.Unlock()
	old.want(t, Unknown)
	if got := old.losses.Load(); got != 1 {
		t.Errorf("the watch has called %d times that it is lost, want once", got)
	}
	php.close()
	old.want(t, Unknown)
	fresh := watch(f, "a")
	fresh.want(t, Unopened) // it was closed after that
	php.open()
	fresh.want(t, Open)
	php.close()
	fresh.want(t, Closed)
	old.Stop()
}

func atoi(b []byte) (n int) {
	for _, c := range b {
		if c >= '0' && c <= '9' {
			n = 10*n + int(c-'0')
		}
	}
	return n
}

func TestEventsOfOthersAllocateNothing(t *testing.T) {
	f, _ := newFolder(t)
	w := watch(f, "mine")
	defer w.Stop()
	f.files.mu.Lock()
	defer f.files.mu.Unlock()
	b := event(w.Watch.(*fileWatch).dir.wd, unix.IN_OPEN, "sess_of-another")
	if got := testing.AllocsPerRun(100, func() { f.files.take(b) }); got != 0 {
		t.Errorf("an event costs %v allocations", got)
	}
}

// event is an event as the kernel writes it.
func event(wd int32, mask uint32, name string) []byte {
	size := (len(name) + 16) &^ 15
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	return append(b, append([]byte(name), make([]byte, size-len(name))...)...)
}

// BenchmarkEvent is an event of a session that is not watched.
func BenchmarkEvent(b *testing.B) {
	f := NewFiles(nil)
	defer f.Close()
	w := f.Folder(b.TempDir(), 0).Watch([]byte("mine"), func(State) {}).(*fileWatch)
	defer w.Stop()
	events := event(w.dir.wd, unix.IN_OPEN, "sess_0123456789abcdefghijklmnop")
	b.ReportAllocs()
	for b.Loop() {
		f.take(events)
	}
}

// BenchmarkRequest is what a request costs whose session is opened and closed by the benchmark itself.
func BenchmarkRequest(b *testing.B) {
	f := NewFiles(nil)
	defer f.Close()
	dir := b.TempDir()
	folder := f.Folder(dir, 0)
	for name, watching := range map[string]bool{"watched": true, "unwatched": false} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			id, path := []byte("0123456789abcdefghijklmnop"), filepath.Join(dir, "sess_0123456789abcdefghijklmnop")
			for b.Loop() {
				var w Watch = nothing{}
				if watching {
					w = folder.Watch(id, func(State) {})
				}
				php, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
				if err != nil {
					b.Fatal(err)
				}
				_ = php.Close()
				w.State()
				w.Stop()
			}
		})
	}
}

// A read of a session's file, as by a backup, is not PHP's: it neither ends a watch nor shows that PHP keeps sessions
// here.
func TestAReaderOfASessionFileIsNotPHP(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	php.open()
	w := watch(f, "a")
	read(t, php.path)
	php.close()
	w.Stop()
	w = watch(f, "a")
	php.open()
	read(t, php.path)
	w.want(t, Open)
	php.close()
	w.want(t, Closed)
	if err := os.WriteFile(filepath.Join(dir, "sess_never"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Stop()
}

func read(t *testing.T, path string) {
	t.Helper()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

// What session_reset() does, and a script that closes its session and goes on with it at once.
func TestAFileThatIsOpenedAgainAtOnceIsNotClosed(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	w := watch(f, "a")
	php.open()
	f.files.mu.Lock() // no read between the two
	php.close()
	php.open()
	f.files.mu.Unlock()
	w.want(t, Open)
	php.close()
	w.want(t, Closed)
	w.Stop()
}

// TestOnlyASessionThatWasSeenIsSaidToBeUnopened: that PHP has not opened it counts only where it keeps it in this
// place.
func TestOnlyASessionThatWasSeenIsSaidToBeUnopened(t *testing.T) {
	for name, c := range map[string]struct {
		before func(php, other *script)
		want   State
	}{
		"nothing":              {func(php, other *script) {}, Unseen},
		"another session":      {func(php, other *script) { other.open(); other.close() }, Unseen},
		"opened, never closed": {func(php, other *script) { php.open() }, Unseen},
		"used":                 {func(php, other *script) { php.open(); php.close() }, Unopened},
		"used, and open again": {func(php, other *script) { php.open(); php.close(); php.open() }, Unopened},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := newFolder(t)
			first := watch(f, "x") // the folder is watched from here on
			defer first.Stop()
			php := scriptOf(t, dir, "a")
			c.before(php, scriptOf(t, dir, "b"))
			w := watch(f, "a")
			defer w.Stop()
			w.want(t, c.want)
			late := watch(f, "late")
			defer late.Stop()
			late.want(t, Unseen)
		})
	}
}

func TestACloseShowsWhereASessionIsKept(t *testing.T) {
	f, dir := newFolder(t)
	php := scriptOf(t, dir, "a")
	f.files.mu.Lock()
	f.files.drain()
	f.files.mu.Unlock()
	php.open()
	w := watch(f, "a")
	w.want(t, Unseen)
	php.close() // of a script that was there before
	w.want(t, Unopened)
	w.Stop()
}

// TestASessionThatShouldBeOpenIsKnownToBe, or not to be, by what came before the watch.
func TestASessionThatShouldBeOpenIsKnownToBe(t *testing.T) {
	f, dir := newFolder(t)
	open, closed := scriptOf(t, dir, "open"), scriptOf(t, dir, "closed")
	open.open()
	closed.open()
	closed.close()
	w, over, unknown := watchOpen(f, "open"), watchOpen(f, "closed"), watchOpen(f, "elsewhere")
	w.want(t, Open)
	unknown.want(t, Presumed)
	if got := over.State(); got != Closed || over.calls.Load() != 0 {
		t.Errorf("got state %d and %d calls, want it closed from the start, without a call", got, over.calls.Load())
	}
	open.close()
	w.want(t, Closed)
}
