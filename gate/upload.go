package gate

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// A body that comes slowly, as nginx passes it on with fastcgi_request_buffering off, is sent to PHP-FPM without the
// lock, but for its last byte: PHP reads the whole body of a POST before it runs the script, so the session is not used
// until then. The lock is acquired when the last byte is there.
//
// Of multipart/form-data PHP may read a part only: it gives up where there is no boundary, at a part without a name,
// and when it has had enough parts. A visitor could have scripts run without the lock by that. So such a body is sent
// late only where PHP locks the session itself.
//
// That takes a worker, as it would without the gate, and the worker goes on to wait for the lock. So only a body that
// is slow is sent so, and lateUploads bounds how many are.

const (
	// A body that has not come whole after bodyPatience is slow. So is one of which enough has come to tell, if the rest
	// would take longer than slowBody at the rate of that. One of at most enoughBody has smallBodyPatience: the gate has
	// room for all of it, PHP could not do anything with a part of it, and a request whose body is there can still be
	// redirected or rejected.
	bodyPatience      = 50 * time.Millisecond
	smallBodyPatience = time.Second
	enoughBody        = 128 << 10
	slowBody          = 250 * time.Millisecond

	// lateUploads is how many slow bodies are sent at once where max_connections does not say how many workers there
	// are; else half of those. The others are for the requests whose locks the uploads will wait for: a pool of two
	// workers has one then.
	lateUploads = 1

	// maxBodies bounds how many requests of a gate have the first bytes of their body in memory while the gate awaits it,
	// and while they wait for the lock after that.
	maxBodies = 64
)

// upload is the body of a request, as far as it matters for the moment at which its lock is acquired.
type upload struct {
	request *request
	length  int64
	awaited bool // it counts among those of maxBodies
	late    bool // and among those of lateUploads: it is sent before the lock is acquired
}

// isSlow reports whether the lock is to be acquired when the body has come. leave must be called in any case.
func (u *upload) isSlow() bool {
	r := u.request
	if r.id == nil || r.policy.Mode != Exclusive || r.Role != fcgi.RoleResponder ||
		string(r.head.method) != http.MethodPost {
		return false
	}
	var err error
	u.length, err = strconv.ParseInt(string(r.Params.Get("CONTENT_LENGTH")), 10, 64)
	if err != nil || u.length <= 0 || u.startsScript() || !u.await() {
		return false
	}
	patience := bodyPatience
	if u.length <= enoughBody {
		patience = smallBodyPatience
	}
	begin := time.Now()
	come, whole := r.AwaitBody(enoughBody, patience)
	if whole || come > enoughBody && expected(u.length, come, time.Since(begin)) < slowBody {
		return false
	}
	return u.sendLate()
}

// startsScript reports whether PHP may run the script before it has read the body, and does not lock the session
// itself; or whether the web server has PHP do so.
func (u *upload) startsScript() bool {
	r := u.request
	early := r.setup.early.Load()
	if !r.setup.PHPLocks && (isMultipart(r.Params.Get("CONTENT_TYPE")) || early > 0 && u.length >= early) {
		return true
	}
	for _, name := range []string{"PHP_VALUE", "PHP_ADMIN_VALUE"} {
		if bytes.Contains(r.Params.Get(name), []byte("enable_post_data_reading")) {
			return true
		}
	}
	return false
}

// isMultipart reports whether PHP may take a content type for multipart/form-data.
func isMultipart(contentType []byte) bool {
	return bytes.Contains(bytes.ToLower(contentType), []byte("multipart"))
}

// expected is how long a body of that length takes at the rate of what has come.
func expected(length int64, come int, in time.Duration) time.Duration {
	return time.Duration(float64(in) * float64(length) / float64(come))
}

// await counts a request that awaits its body, unless there are too many.
func (u *upload) await() bool {
	bodies := &u.request.setup.bodies
	if u.awaited = bodies.Add(1) <= maxBodies; !u.awaited {
		bodies.Add(-1)
	}
	return u.awaited
}

// sendLate counts a slow body, unless there are too many.
func (u *upload) sendLate() bool {
	s := u.request.setup
	most := int32(lateUploads)
	if n := s.Upstream.MaxConnections; n > 0 {
		most = int32(n / 2)
	}
	if u.late = s.late.Add(1) <= most; !u.late {
		s.late.Add(-1)
	}
	return u.late
}

// leave undoes what the request was counted for.
func (u *upload) leave() {
	s := u.request.setup
	if u.awaited {
		s.bodies.Add(-1)
	}
	if !u.late {
		return
	}
	s.late.Add(-1)
	if u.request.exchange.RespondedEarly() && !s.PHPLocks {
		u.noteEarly()
	}
}

// noteEarly notes that PHP ran a script before its body was there, so that no body of that length or more is sent late
// from now on.
func (u *upload) noteEarly() {
	shortest := &u.request.setup.early
	for {
		early := shortest.Load()
		if early > 0 && early <= u.length {
			return
		}
		if !shortest.CompareAndSwap(early, u.length) {
			continue
		}
		if early == 0 {
			u.request.logLine(hclog.Warn, "php ran a script before its body was there, without the lock of its session: "+
				"look at post_max_size and enable_post_data_reading", nil)
		}
		return
	}
}
