package fcgi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// cutOff is called when a script has printed something after its web server has gone. Without the gate its next output
// would fail. A unix socket takes care of that (see clientReader.leave). Over TCP, and where stdin was cut short, only
// a reset makes output fail, and after a reset the end of the script cannot be seen. So cutOff needs to know the
// script's rhythm, and first gives the script cutGrace to end by itself, which can be seen.
func (x *Exchange) cutOff() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cut || x.aborted != nil || x.client.silences() || !x.rhythm.known() {
		return
	}
	x.cut = true
	_ = x.up.nc.SetReadDeadline(time.Now().Add(min(cutGrace, x.AbandonAfter)))
}

// isCut reports whether to reset the connection. Only the goroutine of the exchange may call it.
func (x *Exchange) isCut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cut && x.aborted == nil && !x.finished
}

// reset resets the connection, so that the script's next output fails, and waits as long as that output should take,
// judging by earlier ones.
func (x *Exchange) reset() {
	netpoll.ResetOnClose(x.up.nc)
	_ = x.up.nc.Close()
	end := time.Now().Add(min(x.rhythm.next(), x.AbandonAfter))
	for left := time.Until(end); left > 0 && x.interrupted() == nil; left = time.Until(end) {
		time.Sleep(min(left, 10*time.Millisecond))
	}
}

// afterHangUp waits at most AbandonAfter for the script of a web server that has hung up. err is the error of the
// relay.
func (x *Exchange) afterHangUp(err error) error {
	x.Request.gone = true
	if !x.finished && x.client.silenced {
		err = x.awaitScript()
	}
	if x.isCut() && errors.Is(err, os.ErrDeadlineExceeded) {
		x.reset()
		err = nil
	}
	if x.client.err != nil {
		return x.client.err
	}
	if cause := x.interrupted(); cause != nil {
		return fmt.Errorf("%w: %w", ErrAbandoned, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w after %v", ErrAbandoned, x.AbandonAfter)
	}
	return ErrHungUp
}

// awaitScript waits for the end of a script that was cut off. PHP-FPM reads the rest of the connection only when the
// script has ended, so a byte that stays unread shows that the script runs.
func (x *Exchange) awaitScript() error {
	ctx, cancel := context.WithTimeout(context.Background(), x.AbandonAfter)
	defer cancel()
	if _, err := x.up.nc.Write([]byte{0}); err != nil {
		return nil // PHP-FPM has closed the connection, so the script has ended
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
