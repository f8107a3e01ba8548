package rigtest

import "testing"

func TestEndsOfALog(t *testing.T) {
	for log, want := range map[string]string{
		"":                          "",
		"one\ntwo\nthree":           "one\ntwo\nthree",
		"first\nsecond\nlast":       "first\n…\nlast",
		"first\na\nb\nc\nd\nthird":  "first\na\n…\nd\nthird",
		"one line that is too long": "one line…too long",
	} {
		if got := ends(log, 16); got != want {
			t.Errorf("got %q, want %q of %q", got, want, log)
		}
	}
}
