package phpworker

import "testing"

// TestWhetherASessionWasOpenedIsLearnedFromOneThatIs, and not believed of a PHP in which more than one place could be
// it.
func TestWhetherASessionWasOpenedIsLearnedFromOneThatIs(t *testing.T) {
	m := newFakePHP()
	vars := func(at uint64, kind byte) { m.write(globalsAt+at, append(pointer(0x7f0000001000), kind, 1, 0, 0)) }
	var v sessionVars
	look := func(status Status, want Opened) {
		t.Helper()
		if got := v.look(m, globalsAt, Session{Status: status, ID: "abc"}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	look(None, NotKnown)
	vars(336, 10)
	look(None, NotKnown) // no open session has shown the place yet
	look(Active, Before)
	look(None, Before)
	vars(336, 0)
	look(None, NotYet)

	v = sessionVars{}
	vars(320, 10)
	vars(352, 10)
	look(Active, Before)
	look(None, NotKnown)
	if got := v.look(make(fakeMemory), 0, Session{Status: None}); got != NotKnown {
		t.Errorf("without memory: got %v", got)
	}
}
