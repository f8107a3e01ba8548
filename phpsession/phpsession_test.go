package phpsession

import (
	"fmt"
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

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"PHPSESSID": true, "PHPSESSIDS": false, "SESS1": true, "SESS": true, "SES": false, "my.app_session": true,
		"app session[x]": true, "": false, "[SESS": false, "SESS1[a]": true, "session": false,
	} {
		r := &Rules{Cookies: []string{"PHPSESSID", "SESS*", "*_session"}}
		if got := r.Names([]byte(name)); got != want {
			t.Errorf("Names(%q) = %v, want %v", name, got, want)
		}
	}
}

// TestUnreadCookiesAreCounted wants one count for a request whose cookies have a value and no id.
func TestUnreadCookiesAreCounted(t *testing.T) {
	for header, want := range map[string]int{
		"A=abc": 1, "A=abc; B1=x; B2=y": 1, "A=abc; B1=id=abc": 0, "A=": 0, "other=abc": 0, "": 0,
	} {
		got := 0
		r := &Rules{Cookies: group.Cookies, IDPattern: group.IDPattern, Unread: func() { got++ }}
		r.ID([]byte(header), nil)
		if got != want {
			t.Errorf("%q: counted %d times, want %d", header, got, want)
		}
	}
}

// TestManyCookiesTakeOnePass sends what would be slow if each name were looked for by itself: it takes milliseconds
// here, and would take minutes.
func TestManyCookiesTakeOnePass(t *testing.T) {
	var header strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&header, "SESS%d=%%20;", i)
	}
	r := &Rules{Cookies: []string{"SESS*"}, MaxInputVars: 1_000_000}
	for range 5 {
		if id, ok := r.ID([]byte(header.String()), nil); ok {
			t.Fatalf("got id %q, want none", id)
		}
	}
	header.WriteString("SESSx=abc")
	if id, _ := r.ID([]byte(header.String()), nil); string(id) != "abc" {
		t.Errorf("got id %q, want abc", id)
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
		{"pattern", hashed, "a=b; _ga=GA1.2.3; SESS0123456789abcdef=abcdef0123456789abcdef0123; theme=dark", ""},
		{"part", part, "shop_0123456789abcdef=t_0123456789abcdef%7C%7C1700000000%7C%7C1700000000%7C%7Cabcdef", ""},
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
