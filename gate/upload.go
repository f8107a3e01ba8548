package gate

import (
	"bytes"
	"context"
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
	// would take longer than slowBody at the rate of that.
	bodyPatience = 50 * time.Millisecond
	enoughBody   = 128 << 10
	slowBody     = 250 * time.Millisecond

	// lateUploads is how many slow bodies are sent at once where max_connections does not say how many workers there
	// are; else half of those. The others are for the requests whose locks the uploads will wait for: a pool of two
	// workers has one then.
	lateUploads = 1

	// maxBodies bounds how many requests of a gate have the first bytes of their body in memory while the gate awaits it,
	// and while they wait for the lock after that.
	maxBodies = 64
)

// locksLate reports whether the lock is to be acquired when the body has come. leaveUpload must be called in any case.
func (r *request) locksLate() bool {
	if r.id == nil || r.policy.Mode != Exclusive || r.Role != fcgi.RoleResponder ||
		string(r.head.method) != http.MethodPost {
		return false
	}
	length, err := strconv.ParseInt(string(r.Params.Get("CONTENT_LENGTH")), 10, 64)
	if err != nil || length <= 0 || r.startsBeforeBody(length) {
		return false
	}
	if !r.enterBody() {
		return false
	}
	begin := time.Now()
	come, whole := r.AwaitBody(enoughBody, bodyPatience)
	if whole || come > enoughBody && expected(length, come, time.Since(begin)) < slowBody || !r.enterLate() {
		return false
	}
	r.status = lockLater
	r.exchange.Late, r.exchange.ContentLength = r.acquireLate, length
	return true
}

// startsBeforeBody reports whether PHP may run the script before it has read the body, and does not lock the session
// itself; or whether the web server has PHP do so.
func (r *request) startsBeforeBody(length int64) bool {
	early := r.setup.early.Load()
	if !r.setup.PHPLocks && (isMultipart(r.Params.Get("CONTENT_TYPE")) || early > 0 && length >= early) {
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

// enterBody counts a request that awaits its body, unless there are too many.
func (r *request) enterBody() bool {
	r.bodyAwaited = r.setup.bodies.Add(1) <= maxBodies
	if !r.bodyAwaited {
		r.setup.bodies.Add(-1)
	}
	return r.bodyAwaited
}

// enterLate counts a slow body, unless there are too many.
func (r *request) enterLate() bool {
	most := int32(lateUploads)
	if n := r.setup.Upstream.MaxConnections; n > 0 {
		most = int32(n / 2)
	}
	if r.setup.late.Add(1) > most {
		r.setup.late.Add(-1)
		return false
	}
	return true
}

// leaveUpload undoes what the request was counted for.
func (r *request) leaveUpload() {
	if r.bodyAwaited {
		r.setup.bodies.Add(-1)
	}
	if r.exchange.Late == nil {
		return
	}
	r.setup.late.Add(-1)
	if r.exchange.RespondedEarly() && !r.setup.PHPLocks {
		r.noteEarly()
	}
}

// noteEarly notes that PHP ran a script before its body was there, so that no body of that length or more is sent late
// from now on.
func (r *request) noteEarly() {
	for {
		early := r.setup.early.Load()
		if early > 0 && early <= r.exchange.ContentLength {
			return
		}
		if !r.setup.early.CompareAndSwap(early, r.exchange.ContentLength) {
			continue
		}
		if early == 0 {
			r.logLine(hclog.Warn, "php ran a script before its body was there, without the lock of its session: "+
				"look at post_max_size and enable_post_data_reading", nil)
		}
		return
	}
}

// acquireLate acquires the lock of a request whose script runs when acquireLate has returned, in any case: PHP-FPM has
// its body, and would run the script with a part of it if its connection were closed.
func (r *request) acquireLate(ctx context.Context) {
	if err := r.acquire(ctx); err != nil {
		r.status = lockPassed
		r.gate.counters.passed.Add(1)
		if ctx.Err() == nil {
			r.logLine(hclog.Warn, "upload goes on without the lock of its session", err)
		}
	}
}
