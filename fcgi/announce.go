package fcgi

import (
	"context"
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// A PHP-FPM that ends accepts nothing more while its last scripts run, but its socket takes connections until it has
// ended, and resets them then. A request that was sent on one may have been begun by a worker, or not. So where
// PHP-FPM's return is awaited, begin request goes ahead alone on a fresh connection, and the rest follows when a worker
// has read it: what is lost before that has not run, and is sent again. Only a unix socket shows what has been read.

// announces reports whether begin request goes ahead on up.
func (x *Exchange) announces(up *upstream) bool {
	return x.pool.options.UnreachableWait > 0 && !up.reused && up.isUnix()
}

// announced returns up, err if that is no error, once a worker has taken up. If PHP-FPM closes up before that, another
// connection takes its place, for as long as a request may wait for one.
func (x *Exchange) announced(ctx context.Context, up *upstream, err error) (*upstream, error) {
	var first time.Time
	for err == nil && x.announces(up) {
		if x.announce(ctx, up) {
			return up, nil
		}
		x.pool.put(up, false)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if first.IsZero() {
			first = time.Now()
		} else if time.Since(first) > x.pool.options.QueueTimeout {
			return nil, fmt.Errorf("%w: it closes its connections before it reads from them", ErrUnreachable)
		}
		x.pool.countRetry()
		up, err = x.pool.get(ctx)
	}
	return up, err
}

// announce sends begin request, and reports whether a worker has read it. None has if PHP-FPM closes the connection, or
// ctx is done before.
func (x *Exchange) announce(ctx context.Context, up *upstream) bool {
	r := x.Request
	begin := append([]byte(nil), r.conn.buf.b[:r.begin]...)
	x.setKeepConn(begin, up)
	setRequestID(begin, up.nextID())
	up.announced = true
	x.pool.sent(up)
	if _, err := up.nc.Write(begin); err != nil || !up.taken(ctx) {
		return false
	}
	x.pool.taken(up)
	return true
}

// takenSoon is how long a free worker takes at the most to read begin request. Tests shorten it. A request in the
// backlog is looked at again after pauses that double, up to takenPause.
var takenSoon = 10 * time.Millisecond

const takenPause = 160 * time.Millisecond

// taken waits until PHP-FPM has read what was sent, and reports whether it has. Else it has closed the connection, or
// ctx is done.
func (u *upstream) taken(ctx context.Context) bool {
	for pause := takenSoon; ; pause = min(2*pause, takenPause) {
		taken, err := netpoll.AwaitTaken(u.nc, pause)
		if taken || err != nil {
			return err == nil && u.quiet() // what it has not read is gone, too, when it closes the connection
		}
		if isDone(ctx) {
			return false
		}
	}
}

// isDone reports whether ctx is done. Unlike ctx.Err, it has the context of a request watch the web server.
func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}
