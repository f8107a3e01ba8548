package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// peerKey is that of the user at the other end of a unix socket, in the context of his requests.
type peerKey struct{}

// withPeer notes who is at the other end of a conn, as far as the system says.
func withPeer(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*limitedConn); ok {
		nc = c.Conn
	}
	c, ok := nc.(*net.UnixConn)
	if !ok {
		return ctx
	}
	if peer, err := peerOf(c); err == nil {
		ctx = context.WithValue(ctx, peerKey{}, fmt.Sprintf("uid %d, pid %d", peer.Uid, peer.Pid))
	}
	return ctx
}

func peerOf(c *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return peer, errors.Join(controlErr, err)
}

// clientOf says who asks, for the log.
func clientOf(r *http.Request) string {
	if peer, ok := r.Context().Value(peerKey{}).(string); ok {
		return peer
	}
	return r.RemoteAddr
}
