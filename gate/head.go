package gate

import (
	"bytes"
	"net/http"

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
	upload   bool   // the body may be an upload whose progress PHP keeps: multipart/form-data
	foreign  bool   // the request sets params named FPM_GATE_*, which only the gate may set
}

// gatePrefix starts the names of the gate's own params.
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
		case "CONTENT_TYPE":
			h.upload = bytes.Contains(bytes.ToLower(fcgi.CString(value)), []byte("multipart/"))
		}
		if idParam != "" && string(name) == idParam {
			h.param = fcgi.CString(value)
		}
		if len(name) > len(gatePrefix) && string(name[:len(gatePrefix)]) == gatePrefix {
			h.foreign = true
		}
	}
}

// isSafe reports whether the request only asks for something, by its method.
func (h *head) isSafe() bool {
	switch string(h.method) {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// pathOnly returns a request's target without its query, which may contain secrets.
func pathOnly(target []byte) string {
	path, _, _ := bytes.Cut(target, []byte("?"))
	return string(path)
}
