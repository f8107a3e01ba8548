package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// guard refuses requests that a browser sends for a page of another site. A unix socket needs no such guard: no
// browser can connect to it, and its mode controls access.
func guard(at net.Addr, h http.Handler) http.Handler {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The server has no write timeout, because streams last. Each answer has its own, and streams extend theirs.
		limit := sendTimeout
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			limit = profileTime
		}
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(limit))
		if r.ContentLength != 0 { // net/http reads what a handler leaves, however long that takes
			_ = c.SetReadDeadline(time.Now().Add(headTimeout))
		}
		w.Header().Set("Cache-Control", "no-store") // all of it is out of date a moment later
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY") // a page in a frame could be made to break locks by a click
		h.ServeHTTP(w, r)
	})
	if at.Network() != "tcp" {
		return answer
	}
	// It refuses cross-site requests with unsafe methods. foreign refuses the others, which read.
	changes := http.NewCrossOriginProtection().Handler(answer)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isOurs(r.Host):
			fail(w, http.StatusMisdirectedRequest, "unknown host "+r.Host+"; use the admin's own address")
		case foreign(r):
			fail(w, http.StatusForbidden, "cross-site request refused")
		default:
			changes.ServeHTTP(w, r)
		}
	})
}

// isOurs reports whether a Host header names this host by an address, or by a name that no other site can have. With
// any other name, a site that points its own name at this host could read the admin (DNS rebinding).
func isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	own, _ := os.Hostname() // "" on an error, which is no host
	return strings.EqualFold(host, "localhost") || (own != "" && strings.EqualFold(host, own))
}

// foreign reports whether a page of another site sends the request. A link to the admin's page is allowed.
func foreign(r *http.Request) bool {
	// Browsers send it to trustworthy origins only: to loopback, but not to a LAN address over plain HTTP.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.URL.Path != "/"
	}
	return false
}
