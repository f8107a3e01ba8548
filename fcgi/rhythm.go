package fcgi

import "time"

// cutGrace is how long a script that prints after its web server has gone may go on before its connection is reset: it
// may be about to end. Output within cutGrace of earlier output counts as the same output.
const cutGrace = 50 * time.Millisecond

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
