package fcgi

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// orphan is a script whose web server has hung up. Without the gate its next output would fail, and so it does with it.
//
// A unix socket takes care of that, and still shows when the script ends. Over TCP, and where stdin was cut short, only
// a reset makes output fail, and after a reset the end of the script cannot be seen. So the script is left alone until
// it prints, and then it has cutGrace to end by itself, which can be seen.
type orphan struct {
	link     *link
	patience time.Duration // how long the script is waited for
	onHangUp func()        // nil: it is not called
	rhythm   rhythm        // from the script's first output on, long before it is an orphan
	silenced bool          // PHP-FPM's next write fails

	mu    sync.Mutex // guards what follows, and the deadline that cut sets
	loose bool       // the script may print, and is to lose its connection when it does
	cut   bool       // it has printed, and is about to lose it
}

// begin is called when the web server has hung up and the script may have begun. Stdin may be cut short.
func (o *orphan) begin(stdinWhole bool) {
	if o.onHangUp != nil {
		o.onHangUp()
	}
	if o.silences(stdinWhole) {
		o.silenced = true
		_ = o.link.up.nc.CloseRead()
		return
	}
	if !stdinWhole {
		_ = o.link.up.nc.CloseWrite()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.loose = true
	o.link.readUntil(time.Now().Add(o.patience))
}

// silences reports whether the script can be kept from printing, while the connection still shows when it ends: not
// over TCP, nor if PHP-FPM has to be told that stdin has ended early.
func (o *orphan) silences(stdinWhole bool) bool { return stdinWhole && o.link.up.isUnix() }

// cutGrace is how long a script that prints after its web server has gone may go on before its connection is reset: it
// may be about to end. Output within cutGrace of earlier output counts as the same output.
const cutGrace = 50 * time.Millisecond

// printed is called when output has come, and does nothing before begin. It bounds the wait, unless the script's rhythm
// is not known yet: that is needed to tell, after a reset, when the script has failed.
func (o *orphan) printed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut || !o.loose || !o.rhythm.known() {
		return
	}
	o.cut = o.link.readUntil(time.Now().Add(min(cutGrace, o.patience)))
}

// await waits for the end of the script, for at most patience. err is the error of the reading from PHP-FPM, which has
// ended.
func (o *orphan) await(err error) error {
	if o.silenced {
		err = o.awaitReturn()
	}
	if o.isCut() && errors.Is(err, os.ErrDeadlineExceeded) {
		o.reset()
		err = nil
	}
	return err
}

// awaitReturn waits for the end of a script that is silenced. PHP-FPM reads the rest of the connection only when the
// script has ended, so a byte that stays unread shows that the script runs.
func (o *orphan) awaitReturn() error {
	ctx, cancel := context.WithTimeout(context.Background(), o.patience)
	defer cancel()
	up := o.link.up
	if _, err := up.nc.Write([]byte{0}); err != nil {
		return nil // PHP-FPM has closed the connection, so the script has ended
	}
	for pause := time.Millisecond; o.link.interrupted() == nil; pause = min(2*pause, 10*time.Millisecond) {
		if n, err := up.unread(); n == 0 || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// isCut reports whether to reset the connection.
func (o *orphan) isCut() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cut && o.link.cause() == nil
}

// reset resets the connection, so that the script's next output fails, and waits as long as that output should take,
// judging by earlier ones.
func (o *orphan) reset() {
	up := o.link.up
	netpoll.ResetOnClose(up.nc)
	_ = up.nc.Close()
	end := time.Now().Add(min(o.rhythm.next(), o.patience))
	for left := time.Until(end); left > 0 && o.link.interrupted() == nil; left = time.Until(end) {
		time.Sleep(min(left, 10*time.Millisecond))
	}
}

// rhythm describes how often a script prints.
type rhythm struct {
	outputs int
	began   time.Time     // when the last output began
	pause   time.Duration // the longest between two outputs
}

// count records a read that had to wait for PHP-FPM.
func (r *rhythm) count(waited time.Duration) {
	if r.outputs > 0 && waited < cutGrace {
		return
	}
	if r.outputs++; r.outputs > 1 {
		r.pause = max(r.pause, waited)
	}
	r.began = time.Now()
}

// known reports whether the time of the next output can be estimated: there was a pause, or the first output has ended.
func (r *rhythm) known() bool { return r.outputs > 1 || time.Since(r.began) > cutGrace }

// next returns how long to wait for the next output, at which the script fails, and for the script to write its
// session.
func (r *rhythm) next() time.Duration { return 2 * max(r.pause, cutGrace) }
