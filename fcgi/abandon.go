package fcgi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// cutGrace is how long a script that prints after its web server has gone may still go on before its connection is
// reset: it may be about to end. Output that comes within cutGrace of the last is the same output.
const cutGrace = 50 * time.Millisecond

// rhythm is how a script prints.
type rhythm struct {
	outputs int
	began   time.Time     // the last of them
	pause   time.Duration // the longest between two of them
}

// count notes that PHP-FPM was waited for before a read.
func (r *rhythm) count(waited time.Duration) {
	if r.outputs > 0 && waited < cutGrace {
		return
	}
	if r.outputs++; r.outputs > 1 {
		r.pause = max(r.pause, waited)
	}
	r.began = time.Now()
}

// known reports whether the next output can be expected in time: there was a pause, or there is none.
func (r *rhythm) known() bool { return r.outputs > 1 || time.Since(r.began) > cutGrace }

// next is how long it may take until the next output, and until the script that fails by it has written its session.
func (r *rhythm) next() time.Duration { return 2 * max(r.pause, cutGrace) }

// cutOff is called when a script has printed something and its web server has gone. Without the gate its next output
// would fail by that. A unix socket sees to it by itself (see hangUp). Over TCP only a reset makes output fail, and
// after a reset nothing shows when the script ends. So its rhythm has to be known, and it gets cutGrace to end by
// itself, which is seen.
func (x *Exchange) cutOff() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cut || x.aborted != nil || x.up.isUnix() || !x.rhythm.known() {
		return
	}
	x.cut = true
	_ = x.up.nc.SetReadDeadline(time.Now().Add(min(cutGrace, x.AbandonAfter)))
}

// isCut reports whether the connection is to be reset. It is for the goroutine of the exchange.
func (x *Exchange) isCut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cut && x.aborted == nil && !x.finished
}

// reset resets the connection, so that the script's next output fails, and waits for as long as that output can take,
// judged by those before.
func (x *Exchange) reset() {
	resetOnClose(x.up.nc)
	_ = x.up.nc.Close()
	end := time.Now().Add(min(x.rhythm.next(), x.AbandonAfter))
	for left := time.Until(end); left > 0 && x.interrupted() == nil; left = time.Until(end) {
		time.Sleep(min(left, 10*time.Millisecond))
	}
}

// afterHangUp waits, at most AbandonAfter, for the script of a web server that has hung up. err is what the
// relay ended with.
func (x *Exchange) afterHangUp(err error) error {
	x.Request.gone = true
	if !x.finished && x.feed.silenced {
		err = x.awaitScript()
	}
	if x.isCut() && errors.Is(err, os.ErrDeadlineExceeded) {
		x.reset()
		err = nil
	}
	if x.feed.err != nil {
		return x.feed.err
	}
	if cause := x.interrupted(); cause != nil {
		return fmt.Errorf("%w: %w", ErrAbandoned, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w after %v", ErrAbandoned, x.AbandonAfter)
	}
	return ErrHungUp
}

// awaitScript waits for the end of a script that has been cut off. PHP-FPM reads what is left on the
// connection when the script has ended, and not before: so one byte that stays unread says that it runs.
func (x *Exchange) awaitScript() error {
	ctx, cancel := context.WithTimeout(context.Background(), x.AbandonAfter)
	defer cancel()
	if _, err := x.up.nc.Write([]byte{0}); err != nil {
		return nil // the other side is closed: it has ended
	}
	for pause := time.Millisecond; x.interrupted() == nil; pause = min(2*pause, 10*time.Millisecond) {
		if n, err := x.up.unread(); n == 0 || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}
