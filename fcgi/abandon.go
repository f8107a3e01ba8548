package fcgi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// afterHangUp waits, at most AbandonAfter, for the script of a web server that has hung up. err is what the
// relay ended with.
func (x *Exchange) afterHangUp(err error) error {
	x.Request.gone = true
	if !x.finished && x.feed.silenced {
		err = x.awaitScript()
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
