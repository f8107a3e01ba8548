package fcgi

import "testing"

func TestStdinPlace(t *testing.T) {
	abort := AppendRecord(nil, TypeAbortRequest, 1, nil)
	data := joined(AppendRecord(nil, TypeData, 1, []byte("data")), AppendRecord(nil, TypeData, 1, nil))
	for name, c := range map[string]struct {
		records        []byte
		whole, filters bool // of a responder, and of a filter
	}{
		"nothing":             {nil, false, false},
		"no body":             {stdinOf(1, ""), true, false},
		"a body":              {stdinOf(1, "body"), true, false},
		"with padding":        {joined(padded(TypeStdin, 1, "body", 5), padded(TypeStdin, 1, "", 7)), true, false},
		"without its end":     {AppendRecord(nil, TypeStdin, 1, []byte("body")), false, false},
		"of another request":  {stdinOf(2, "body"), false, false},
		"with one of another": {joined(stdinOf(2, "body"), stdinOf(1, "body"), stdinOf(2, "")), true, false},
		"and an abort":        {joined(stdinOf(1, "body"), abort), false, false},
		"of another, aborted": {joined(stdinOf(1, "body"), AppendRecord(nil, TypeAbortRequest, 2, nil)), true, false},
		"and data":            {joined(stdinOf(1, "body"), data), true, true},
		"no FastCGI":          {joined(stdinOf(1, "body"), []byte("GET / HTTP/1.1\r\n")), false, false},
	} {
		for cut := range len(c.records) + 1 {
			for filter, want := range map[bool]bool{false: c.whole, true: c.filters} {
				p := stdinPlace{wantsData: filter}.after(c.records[:cut], 1).after(c.records[cut:], 1)
				if got := p.isWhole(); got != want {
					t.Errorf("%s, cut at %d, filter %t: got %t, want %t", name, cut, filter, got, want)
				}
			}
		}
	}
}
