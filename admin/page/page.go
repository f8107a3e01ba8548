// Package page serves the admin's web page: a timeline with a lane per session, in which the holder and its waiters are
// bars, the slowest scripts of the last hour, and buttons that break a lock, and pause and resume a gate.
//
// The page is three files and an icon, all embedded. It sends requests only to its own origin, by relative URLs: to
// events, history, locks/KEY and pause, which package admin serves. It inserts their data as text, never as HTML,
// and its Content-Security-Policy makes the browser refuse anything else.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Handler serves the page at / and its files next to it. Other paths get 404, and methods other than GET and HEAD 405.
func Handler() http.Handler {
	mux := http.NewServeMux()
	for _, f := range files {
		mux.Handle("GET "+f.path, f)
	}
	return mux
}

// file is one of the page's files.
type file struct {
	path, contentType string
	plain             []byte
	zipped            func() []byte // when a browser first asks: most commands of the program serve no page
	tag               string        // a hash of the content, for the Etag
}

var (
	//go:embed page.html
	html []byte
	//go:embed page.css
	css []byte
	//go:embed page.js
	js []byte
	//go:embed icon.svg
	icon []byte

	files = []*file{
		newFile("/{$}", "text/html; charset=utf-8", html),
		newFile("/page.css", "text/css; charset=utf-8", css),
		newFile("/page.js", "text/javascript; charset=utf-8", js),
		newFile("/icon.svg", "image/svg+xml", icon),
	}
)

func newFile(path, contentType string, content []byte) *file {
	sum := sha256.Sum256(content)
	zipped := sync.OnceValue(func() []byte { return zip(content) })
	return &file{path, contentType, content, zipped, hex.EncodeToString(sum[:8])}
}

func zip(content []byte) []byte {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write(content) // to memory: it cannot fail
	_ = w.Close()
	return zipped.Bytes()
}

// policy lets the page load its own files and send requests to its own gate, and nothing else.
// With trusted types a script cannot even try to make HTML of a string.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", f.contentType)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	content, tag := f.plain, f.tag
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		content, tag = f.zipped(), tag+"-gzip"
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Etag", `"`+tag+`"`) // so that an upgraded gate's page replaces a cached one at once
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}
