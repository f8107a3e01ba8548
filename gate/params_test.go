package gate

import (
	"testing"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

func TestNobodyElseSetsTheGatesParams(t *testing.T) {
	pairs := fcgi.AppendPair(nil, "FPM_GATE_KEY", "forged")
	pairs = fcgi.AppendPair(pairs, "FPM_GATE_OF_A_LATER_VERSION", "forged")
	pairs = fcgi.AppendPair(pairs, "FPM_GATE_LOCK", "held")
	came, err := fcgi.ParseParams(fcgi.AppendRecord(nil, fcgi.TypeParams, 1, pairs))
	if err != nil {
		t.Fatal(err)
	}
	r := &request{Request: &fcgi.Request{Params: came}, status: lockNone}
	r.head.read(came, "")
	sent, err := fcgi.ParseParams(fcgi.AppendRecord(nil, fcgi.TypeParams, 1, append(pairs, r.gateParams(nil)...)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"FPM_GATE_KEY": "", "FPM_GATE_OF_A_LATER_VERSION": "", "FPM_GATE_LOCK": "none"} {
		if got := string(sent.Get(name)); got != want {
			t.Errorf("PHP gets %s=%q, want %q", name, got, want)
		}
	}
}
