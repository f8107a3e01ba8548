package gate

import (
	"bytes"
	"strconv"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// head is what the gate reads of a request's params. The values alias the request's buffer.
type head struct {
	cookie   []byte // HTTP_COOKIE
	query    []byte // QUERY_STRING
	param    []byte // the param that holds the session id, if one is configured
	method   []byte // REQUEST_METHOD
	script   []byte // SCRIPT_NAME
	filename []byte // SCRIPT_FILENAME
	target   []byte // REQUEST_URI
	host     []byte // HTTP_HOST
	accept   []byte // HTTP_ACCEPT
	foreign  bool   // there are params named FPM_GATE_*, which are not for others to set
}

// gatePrefix is that of the names of the gate's own params.
const gatePrefix = "FPM_GATE_"

// read picks the values out of params, in one pass. The last of a name wins, as in PHP.
func (h *head) read(params fcgi.Params, idParam string) {
	for name, value := range params.All() {
		switch string(name) {
		case "HTTP_COOKIE":
			h.cookie = fcgi.CString(value)
		case "QUERY_STRING":
			h.query = fcgi.CString(value)
		case "REQUEST_METHOD":
			h.method = fcgi.CString(value)
		case "SCRIPT_NAME":
			h.script = fcgi.CString(value)
		case "SCRIPT_FILENAME":
			h.filename = fcgi.CString(value)
		case "REQUEST_URI":
			h.target = fcgi.CString(value)
		case "HTTP_HOST":
			h.host = fcgi.CString(value)
		case "HTTP_ACCEPT":
			h.accept = fcgi.CString(value)
		}
		if idParam != "" && string(name) == idParam {
			h.param = fcgi.CString(value)
		}
		if len(name) > len(gatePrefix) && string(name[:len(gatePrefix)]) == gatePrefix {
			h.foreign = true
		}
	}
}

// gateParams appends the params by which PHP learns of the lock. They come behind all others, so they win.
func (r *request) gateParams(b []byte) []byte {
	if r.head.foreign {
		b = r.overrideForeign(b)
	}
	b = fcgi.AppendPair(b, "FPM_GATE_LOCK", string(r.status))
	if r.status == lockNone {
		return b
	}
	b = fcgi.AppendPair(b, "FPM_GATE_KEY", r.key.String())
	b = fcgi.AppendPair(b, "FPM_GATE_WAIT_MS", strconv.FormatInt(r.waited.Milliseconds(), 10))
	if r.status != lockHeld && r.status != lockLocal {
		return b
	}
	b = fcgi.AppendPair(b, "FPM_GATE_TOKEN", r.hold.lock.LeaseToken().String())
	return fcgi.AppendPair(b, "FPM_GATE_EXPIRES", strconv.FormatInt(ceilUnix(r.hold.lock.Expires()), 10))
}

// overrideForeign empties the params that a request has tried to set itself.
func (r *request) overrideForeign(b []byte) []byte {
	for name := range r.Params.All() {
		if bytes.HasPrefix(name, []byte(gatePrefix)) {
			b = fcgi.AppendPair(b, name, "")
		}
	}
	return b
}

// ceilUnix is t in whole Unix seconds, rounded up: the lock is not held any more by then. A zero t is 0.
func ceilUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Second - 1).Unix()
}

// pathOnly is a request's target without its query, which can hold what is not for logs.
func pathOnly(target []byte) string {
	path, _, _ := bytes.Cut(target, []byte("?"))
	return string(path)
}

// isHeader says whether a header line has that name.
func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}
