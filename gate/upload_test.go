package gate

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// uploadBody is a body whose second half comes later.
const uploadBody = "0123456789"

// upload sends a POST of a session with the first half of its body.
func (s *stand) upload(id string, params ...string) *browser {
	s.t.Helper()
	post := append(session(id), "REQUEST_METHOD", "POST", "CONTENT_LENGTH", strconv.Itoa(len(uploadBody)))
	params = append(post, params...)
	head := requestOf(params...)
	nc := s.ask()
	s.php.next().end(page)
	nc.want("")
	nc.name = "upload " + id
	if _, err := nc.Write(fcgi.AppendRecord(head[:len(head)-8], fcgi.TypeStdin, 1, []byte(uploadBody[:5]))); err != nil {
		s.t.Fatal(err)
	}
	return nc
}

// finish sends the rest of the body of an upload.
func (b *browser) finish() {
	b.t.Helper()
	rest := fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, []byte(uploadBody[5:]))
	if _, err := b.Write(fcgi.AppendRecord(rest, fcgi.TypeStdin, 1, nil)); err != nil {
		b.t.Fatal(err)
	}
}

// late waits until n uploads are on their way without a lock.
func (s *stand) late(n int32) {
	s.t.Helper()
	await(s.t, "uploads are on their way", func() bool { return s.setup.Load().late.Load() == n })
}

func TestSlowUploadHasItsLockWhenItsBodyIsThere(t *testing.T) {
	s := newStand(t, nil)
	up := s.upload("one")
	s.late(1)
	before := s.ask(session("one")...)
	s.php.next().end(page + "before")
	before.want("before")

	ahead := s.ask(session("one")...)
	holder := s.php.next()
	up.finish()
	s.waiters(1)
	s.php.none(t)
	after := s.ask(session("one")...)
	s.waiters(2)
	holder.end(page + "ahead")
	ahead.want("ahead")

	script := s.php.next()
	if script.body != uploadBody {
		t.Errorf("PHP got %q", script.body)
	}
	for name, want := range map[string]bool{"KEY": true, "TOKEN": false, "WAIT_MS": false, "EXPIRES": false} {
		if _, got := script.params["FPM_GATE_"+name]; got != want {
			t.Errorf("PHP has param FPM_GATE_%s: %t", name, got)
		}
	}
	if got := script.params["FPM_GATE_LOCK"]; got != "later" {
		t.Errorf("PHP got FPM_GATE_LOCK=%q", got)
	}
	s.waiters(1)
	s.php.none(t)
	script.end(page + "uploaded")
	up.want("uploaded")
	s.php.next().end(page + "after")
	after.want("after")
	s.unlocked()
	s.late(0)
	if got := s.Stats(); got.Acquired != 4 || got.Passed != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestSmallBodyIsAwaited: its request has its lock before PHP-FPM gets anything of it, and can still be redirected.
func TestSmallBodyIsAwaited(t *testing.T) {
	s := newStand(t, nil)
	for range 30 {
		began := time.Now()
		up := s.upload("one")
		time.Sleep(2 * bodyPatience)
		up.finish()
		script := s.php.next()
		came := time.Since(began)
		script.end(page + "uploaded")
		up.want("uploaded")
		if came > smallBodyPatience {
			continue // this machine was too slow
		}
		if got := script.params["FPM_GATE_LOCK"]; got != "held" {
			t.Errorf("PHP got FPM_GATE_LOCK=%q", got)
		}
		return
	}
	t.Errorf("no body of 30 came to PHP within %v", smallBodyPatience)
}

func TestSlowUploadThatWaitsTooLongGoesOnWithoutTheLock(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWait = 10 * time.Millisecond })
	up := s.upload("one")
	s.late(1)
	holds := s.ask(session("one")...)
	holder := s.php.next()
	up.finish()
	script := s.php.next()
	if script.body != uploadBody {
		t.Errorf("PHP got %q", script.body)
	}
	script.end(page + "uploaded")
	up.want("uploaded")
	if got := s.Stats(); got.Passed != 1 {
		t.Errorf("got %+v, want one that has passed", got)
	}
	if !strings.Contains(s.log.String(), "[WARN]  upload goes on without the lock of its session") {
		t.Error("that is not logged")
	}
	holder.end(page + "held")
	holds.want("held")
}

func TestUploadWhoseWebServerHasGoneHasItsLock(t *testing.T) {
	for name, whole := range map[string]bool{"with its body whole": true, "in the middle of its body": false} {
		s := newStand(t, nil)
		up := s.upload("one")
		s.late(1)
		holds := s.ask(session("one")...)
		holder := s.php.next()
		if whole {
			up.finish()
			s.waiters(1)
		}
		up.Close()
		s.waiters(1)
		s.php.none(t)
		holder.end(page + "held")
		holds.want("held")
		if whole {
			script := s.php.next()
			if script.body != uploadBody {
				t.Errorf("%s: PHP got %q", name, script.body)
			}
			script.end(page)
		}
		s.unlocked()
		s.late(0)
	}
}

// Whatever is not an upload by POST that comes slowly has its lock from the start, and so have uploads that are too
// many.
func TestLockBeginsWithTheHeadOfOtherRequests(t *testing.T) {
	for name, params := range map[string][]string{
		"PUT":                        {"REQUEST_METHOD", "PUT"},
		"no length":                  {"CONTENT_LENGTH", ""},
		"a script before its body":   {"PHP_VALUE", "enable_post_data_reading=0\nmemory_limit=1G"},
		"the same by an admin value": {"PHP_ADMIN_VALUE", "enable_post_data_reading=off"},
		"multipart":                  {"CONTENT_TYPE", "multipart/form-data; boundary=XX"},
		"multipart, spelled oddly":   {"CONTENT_TYPE", "MultiPart/form-Data"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, nil)
			s.lockedByUpload(s.upload("one", params...))
		})
	}
	for connections, most := range map[int]int{0: lateUploads, 1: 0, 5: 2, 8: 4} {
		t.Run(strconv.Itoa(connections)+" connections", func(t *testing.T) {
			s := newStand(t, func(o *Options) { o.Upstream.MaxConnections = connections })
			var late []*browser
			for i := range most {
				late = append(late, s.upload("late"+strconv.Itoa(i)))
				s.late(int32(i + 1))
			}
			s.lockedByUpload(s.upload("one"))
			for _, up := range late {
				up.finish()
				s.php.next().end(page + "uploaded")
				up.want("uploaded")
			}
		})
	}
}

func TestMultipartIsLateWherePHPLocks(t *testing.T) {
	s := newStand(t, func(o *Options) { o.LocksGiven, o.PHPLocks = true, true })
	up := s.upload("one", "CONTENT_TYPE", "multipart/form-data; boundary=XX")
	s.late(1)
	up.finish()
	s.php.next().end(page + "uploaded")
	up.want("uploaded")
}

// An upload whose lock is acquired late runs in any case, so it waits, however many do.
func TestSlowUploadWaitsBesideMaxWaiters(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWaiters = 1 })
	up := s.upload("one")
	s.late(1)
	holds := s.ask(session("one")...)
	holder := s.php.next()
	waits := s.ask(session("one")...)
	s.waiters(1)
	up.finish()
	s.waiters(2)
	s.php.none(t)
	holder.end(page + "held")
	holds.want("held")
	s.php.next().end(page + "waited")
	waits.want("waited")
	s.php.next().end(page + "uploaded")
	up.want("uploaded")
	if got := s.Stats(); got.Passed != 0 {
		t.Errorf("got %+v, want none that has passed", got)
	}
}

// A PHP that responds before the body is there has not waited for it, and will not for others of that length.
func TestPHPThatRespondsEarlyIsNoted(t *testing.T) {
	s := newStand(t, nil)
	s.setup.Load().early.Store(int64(len(uploadBody)) + 1) // a longer one has been noted: this one is late
	s.early()
	await(t, "its length is noted", func() bool { return s.setup.Load().early.Load() == int64(len(uploadBody)) })
	s.lockedByUpload(s.upload("one"))

	s.setup.Load().early.Store(0)
	s.early()
	await(t, "that is logged", func() bool {
		return strings.Contains(s.log.String(), "[WARN]  php ran a script before its body was there")
	})
	s.lockedByUpload(s.upload("one"))
}

// early has PHP respond to a slow upload before its body is there.
func (s *stand) early() {
	s.t.Helper()
	s.php.early.Store(true)
	up := s.upload("one")
	s.late(1)
	s.php.next().end(page + "early")
	up.want("early")
	up.Close()
	s.late(0)
	s.php.early.Store(false)
}

// lockedByUpload checks that an upload of session one has its lock, and ends it.
func (s *stand) lockedByUpload(up *browser) {
	s.t.Helper()
	await(s.t, "the upload has its lock", func() bool { return len(s.locks.Snapshot()) > 0 })
	other := s.ask(session("one")...)
	s.waiters(1)
	up.finish()
	script := s.php.next()
	if got := script.params["FPM_GATE_LOCK"]; got != "held" || script.body != uploadBody {
		s.t.Errorf("PHP got FPM_GATE_LOCK=%q and the body %q", got, script.body)
	}
	script.end(page + "uploaded")
	up.want("uploaded")
	s.php.next().end(page + "other")
	other.want("other")
}

func TestBodiesInMemoryAreBounded(t *testing.T) {
	s := newStand(t, nil)
	s.setup.Load().bodies.Add(maxBodies)
	up := s.upload("one")
	s.lockedByUpload(up)
	if got := s.setup.Load().bodies.Load(); got != maxBodies {
		t.Errorf("%d requests are counted, want %d", got, maxBodies)
	}
}
