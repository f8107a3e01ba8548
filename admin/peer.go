package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// peerKey is the context key of the process at the other end of a unix socket.
type peerKey struct{}

// withPeer adds the user and process at the other end of a unix socket to ctx, for the log. The server calls it once a
// connection, before its first request.
func withPeer(ctx context.Context, nc net.Conn) context.Context {
	if c, ok := nc.(*limitedConn); ok { // as limited accepts them
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

// peerOf asks the kernel, which noted the peer when it connected: the process may have ended since, or passed the
// connection on. See SO_PEERCRED in unix(7).
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

// clientOf names the client of a request for the log: its user and process, or its address.
func clientOf(r *http.Request) string {
	if peer, ok := r.Context().Value(peerKey{}).(string); ok {
		return peer
	}
	return r.RemoteAddr
}
