package fcgi

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestParamsComeAsTheyWereWritten(t *testing.T) {
	long := strings.Repeat("v", 70_000)
	wide := strings.Repeat("n", 127) + "|" + strings.Repeat("n", 128)
	for _, c := range []struct {
		name  string
		pairs []string
	}{
		{"no pair", nil},
		{"an empty value", []string{"A", ""}},
		{"an empty name", []string{"", "a"}},
		{"nothing at all in a pair", []string{"", ""}},
		{"lengths on both sides of one byte", []string{wide[:127], wide[128:], wide[128:], wide[:127]}},
		{"a name twice", []string{"A", "1", "A", "2"}},
		{"a long value", []string{"A", long[:60_000], "B", "b"}},
	} {
		records := AppendStream(nil, TypeParams, 1, pairsOf(c.pairs...))
		p, err := ParseParams(records)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := flat(p); strings.Join(got, "\n") != strings.Join(c.pairs, "\n") {
			t.Errorf("%s: got %.100q, want %.100q", c.name, got, c.pairs)
		}
	}
}

func flat(p Params) []string {
	var pairs []string
	for name, value := range p.All() {
		pairs = append(pairs, string(name), string(value))
	}
	return pairs
}

func TestParamsSpanSeveralRecordsButAPairDoesNot(t *testing.T) {
	a, b := pairsOf("A", "1"), pairsOf("B", "22")
	p, err := ParseParams(joined(padded(TypeParams, 1, string(a), 5), padded(TypeParams, 1, string(b), 0)))
	if got := strings.Join(flat(p), " "); err != nil || got != "A 1 B 22" {
		t.Errorf("pairs in two records: got %q and %v", got, err)
	}
	both := joined(a, b)
	for i := 1; i < len(both); i++ {
		records := joined(AppendRecord(nil, TypeParams, 1, both[:i]), AppendRecord(nil, TypeParams, 1, both[i:]))
		_, err := ParseParams(records)
		if i == len(a) {
			if err != nil {
				t.Errorf("cut between the pairs: %v", err)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Errorf("a pair cut at byte %d: got %v, want ErrMalformed", i, err)
		}
	}
}

func TestParamsThatAreCutShortAreMalformed(t *testing.T) {
	records := AppendRecord(nil, TypeParams, 1, pairsOf("NAME", strings.Repeat("v", 200), "B", ""))
	for i := 1; i < len(records); i++ {
		if _, err := ParseParams(records[:i]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at byte %d: got %v, want ErrMalformed", i, err)
		}
	}
	for name, content := range map[string]string{
		"a name longer than its record":    "\x05\x00abcd",
		"a value longer than its record":   "\x01\x05abcd",
		"half a length":                    "\x80\x00\x00",
		"the second length missing":        "\x01",
		"the greatest lengths there are":   "\xff\xff\xff\xff\xff\xff\xff\xffabcd",
		"a whole pair and half of another": "\x01\x01ab\x01\x02a",
	} {
		if _, err := ParseParams(AppendRecord(nil, TypeParams, 1, []byte(content))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestGetSeesWhatPHPSees(t *testing.T) {
	p, err := ParseParams(AppendStream(nil, TypeParams, 1,
		pairsOf("TWICE", "first", "NUL", "before\x00behind", "EMPTY", "", "TWICE", "last", "ONLYNUL", "\x00x")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"TWICE": "last", "NUL": "before", "EMPTY": "", "ONLYNUL": ""} {
		if got := p.Get(name); string(got) != want || got == nil {
			t.Errorf("%s: got %#v, want %q", name, got, want)
		}
	}
	if got := p.Get("twice"); got != nil {
		t.Errorf("a name in lower case: got %q, want nil", got)
	}
}

func FuzzParams(f *testing.F) {
	f.Add(pairsOf("A", "1", "B", strings.Repeat("b", 200)), byte(3))
	f.Add([]byte("\x80\x00\x00\x01\x00n"), byte(0))
	f.Add([]byte("\x01"), byte(0))
	f.Fuzz(func(t *testing.T, content []byte, padding byte) {
		if len(content) > maxContent {
			return
		}
		records := padded(TypeParams, 1, string(content), int(padding))
		p, err := ParseParams(records)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
			return
		}
		// Written again with the shortest lengths there are, they are the same pairs.
		var again []byte
		for name, value := range p.All() {
			again = AppendPair(again, name, value)
			if got, want := p.Get(string(name)), CString(lastOf(p, name)); !bytes.Equal(got, want) {
				t.Errorf("get %q: got %q, want %q", name, got, want)
			}
		}
		if len(again) > len(content) {
			t.Fatalf("written again: %d bytes, want at most %d", len(again), len(content))
		}
		if len(again) == len(content) && !bytes.Equal(again, content) {
			t.Errorf("written again: got %q, want %q", again, content)
		}
		q, err := ParseParams(AppendRecord(nil, TypeParams, 1, again))
		if got, want := strings.Join(flat(q), "\n"), strings.Join(flat(p), "\n"); err != nil || got != want {
			t.Errorf("parsed again: got %q and %v, want %q", got, err, want)
		}
	})
}

func lastOf(p Params, name []byte) []byte {
	var last []byte
	for n, v := range p.All() {
		if bytes.Equal(n, name) {
			last = v
		}
	}
	return last
}
