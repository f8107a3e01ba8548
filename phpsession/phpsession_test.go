package phpsession

import (
	"strings"
	"testing"
)

// typical is what a browser sends to a shop.
const typical = "a=b; _ga=GA1.2.3; PHPSESSID=abcdef0123456789abcdef0123; theme=dark"

func TestValid(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules *Rules
		id    string
		want  bool
	}{
		{"an id", plain, "abc", true},
		{"any byte but a few", plain, "_/\xff\v=;%", true},
		{"empty", plain, "", false},
		{"a NUL first", plain, "\x00abc", false},
		{"a NUL within", plain, "abc\x00 ", true},
		{"a space", plain, "a b", false},
		{"a tab", plain, "a\tb", false},
		{"a carriage return", plain, "a\rb", false},
		{"a line feed", plain, "a\nb", false},
		{"less than", plain, "a<b", false},
		{"greater than", plain, "a>b", false},
		{"an apostrophe", plain, "a'b", false},
		{"a quotation mark", plain, `a"b`, false},
		{"a backslash", plain, `a\b`, false},
		{"files: all letters", files, "azAZ09,-", true},
		{"files: next to the letters", files, "a`", false},
		{"files: a colon", files, "a:", false},
		{"files: a dot", files, "a.", false},
		{"files: the longest", files, strings.Repeat("a", 250), true},
		{"files: longer", files, strings.Repeat("a", 251), false},
		{"depth: as long", depth2, "ab", false},
		{"depth: longer", depth2, "abc", true},
		{"depth: a NUL among the folders", depth2, "a\x00bc", false},
		{"depth without files", &Rules{Depth: 2}, "a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.rules.Valid([]byte(c.id)); got != c.want {
				t.Errorf("Valid(%q) = %v, want %v", c.id, got, c.want)
			}
		})
	}
}

func TestLockName(t *testing.T) {
	for id, want := range map[string]string{"abc": "abc", "abc\x00def": "abc", "\x00abc": "", "": ""} {
		if got := string(LockName([]byte(id))); got != want {
			t.Errorf("LockName(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestTheZeroRulesFindNothing(t *testing.T) {
	if id, ok := new(Rules).ID([]byte(typical), []byte("PHPSESSID=abc")); ok {
		t.Errorf("ID = %q, want none", id)
	}
}

func TestIDAllocatesNothingWithoutNeed(t *testing.T) {
	for _, c := range []struct {
		name          string
		rules         *Rules
		cookie, query string
	}{
		{"an id", plain, typical, ""},
		{"no cookie", plain, "", ""},
		{"no id", plain, "a=b; theme=dark; c[d]=e; f=%20", "q=%20"},
		{"an underscore from a dot", under, "my.app=abc", ""},
		{"an id in the query", both, "a=b", "page=2&filter%5Ba%5D=b&PHPSESSID=abc"},
		{"the files handler", files, typical, ""},
		{"several names", several, "X=y; B=abc", "q=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cookie, query := []byte(c.cookie), []byte(c.query)
			if got := testing.AllocsPerRun(100, func() { c.rules.ID(cookie, query) }); got != 0 {
				t.Errorf("ID allocates %v times, want 0", got)
			}
		})
	}
}

// BenchmarkID measures what every request pays. "long" is a header of 4 KiB full of other
// people's cookies.
func BenchmarkID(b *testing.B) {
	long := strings.Repeat("_pk_id.7.1fff=1a2b3c4d5e6f.1700000000.; ", 100) + typical
	for _, c := range []struct {
		name          string
		rules         *Rules
		cookie, query string
	}{
		{"typical", plain, typical, ""},
		{"no cookie", plain, "", ""},
		{"long", plain, long, ""},
		{"files", files, typical, ""},
		{"decoded", plain, "PHPSESSID=abcdef%2C0123456789abcdef", ""},
		{"query", both, "a=b", "page=2&filter%5Ba%5D=b&PHPSESSID=abcdef0123456789"},
		{"array", tight, "S[a][b]=x; S[][][][]=x; S=abc", ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			cookie, query := []byte(c.cookie), []byte(c.query)
			b.SetBytes(int64(len(cookie) + len(query)))
			b.ReportAllocs()
			for b.Loop() {
				c.rules.ID(cookie, query)
			}
		})
	}
}
