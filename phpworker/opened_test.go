package phpworker

import "testing"

func TestWhetherASessionWasOpenedIsLearned(t *testing.T) {
	type p []uint64
	type look struct {
		at     p // where something looks like the variable
		status Status
		want   Opened
	}
	for name, c := range map[string]struct {
		known bool
		looks []look
	}{
		"from an open session": {false, []look{
			{nil, None, NotKnown}, {p{336}, None, NotKnown}, {p{336}, Active, Before}, {p{336}, None, Before}, {nil, None, NotYet},
		}},
		"of PHP 8.2":          {false, []look{{p{320}, Active, Before}, {p{320}, None, Before}, {nil, None, NotYet}}},
		"of PHP 8.4":          {false, []look{{p{360}, Active, Before}, {p{360}, None, Before}, {nil, None, NotYet}}},
		"of one at the end":   {false, []look{{p{424}, Active, Before}, {p{424}, None, Before}, {nil, None, NotYet}}},
		"from a closed one":   {true, []look{{nil, None, NotKnown}, {p{360}, None, Before}, {nil, None, NotYet}}},
		"before it is there":  {false, []look{{nil, Active, Before}, {nil, None, NotKnown}, {p{320}, Active, Before}, {p{320}, None, Before}}},
		"not from two places": {true, []look{{p{320, 360}, Active, Before}, {p{320, 360}, None, NotKnown}}},
	} {
		t.Run(name, func(t *testing.T) {
			var v sessionVars
			for n, l := range c.looks {
				m := newFakePHP()
				m.write(globalsAt+varsFrom, make([]byte, varsSize))
				for _, at := range l.at {
					m.write(globalsAt+at, append(pointer(0x7f0000001000), 10, 1, 0, 0))
				}
				if got := v.opened(readVars(m, globalsAt), l.status, c.known); got != l.want {
					t.Errorf("look %d: got %v, want %v", n+1, got, l.want)
				}
			}
		})
	}
	var v sessionVars
	if got := v.opened(readVars(make(fakeMemory), 0), Active, true); got != NotKnown {
		t.Errorf("without memory: got %v", got)
	}
}

// TestReferencesAreTold from other values: of any kind that PHP has had, and of no other.
func TestReferencesAreTold(t *testing.T) {
	for name, tt := range map[string]struct {
		addr  uint64
		kind  uint32
		isOne bool
	}{
		"up to PHP 8.4":   {0x7f0000001000, 0x10a, true},
		"since PHP 8.5":   {0x7f0000001000, 0x30a, true},
		"an array":        {0x7f0000001000, 0x307, false},
		"not counted":     {0x7f0000001000, 0x00a, false},
		"after a request": {0x7f0000001000, 0, false},
		"no address":      {8, 0x30a, false},
	} {
		b := append(native.AppendUint32(pointer(tt.addr), tt.kind), 0, 0, 0, 0)
		if got := isZval(b); got != tt.isOne {
			t.Errorf("%s: got %v, want %v", name, got, tt.isOne)
		}
	}
}
