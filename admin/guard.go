package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// guard keeps the pages that a browser has open elsewhere from asking here, or from changing anything. On a unix
// socket there is no browser, and its mode is the only guard.
func guard(at net.Addr, h http.Handler) http.Handler {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := sendTimeout
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			limit = profileTime
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit))
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		h.ServeHTTP(w, r)
	})
	if at.Network() != "tcp" {
		return answer
	}
	changes := http.NewCrossOriginProtection().Handler(answer)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isOurs(r.Host):
			fail(w, http.StatusMisdirectedRequest, "this is not "+r.Host+": ask by the address that the admin listens on")
		case foreign(r):
			fail(w, http.StatusForbidden, "a page of another site asks")
		default:
			changes.ServeHTTP(w, r)
		}
	})
}

// isOurs says whether a Host header names us by an address, or by a name that nobody else can have. A name of
// somebody else's that leads here is how a page of his would read what is ours (DNS rebinding).
func isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	own, _ := os.Hostname()
	return strings.EqualFold(host, "localhost") || (own != "" && strings.EqualFold(host, own))
}

// foreign says whether a page of another site asks for anything but the page itself, to which a link may lead.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.URL.Path != "/"
	}
	return false
}
