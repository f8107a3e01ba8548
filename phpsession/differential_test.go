package phpsession

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// For a long run by hand: go test -run Generated -cases 200000 -seed 2
var (
	cases = flag.Int("cases", 6000, "generated headers to compare with PHP")
	seed  = flag.Uint64("seed", 1, "seed of the generated headers")
)

func TestIDIsWhatPHPTakesFromGeneratedHeaders(t *testing.T) {
	ref := newReferee(t)
	g := generator{rand.New(rand.NewPCG(*seed, 0))}
	taken := 0
	for range *cases {
		r := pick(g, allRules)
		cookie, query := g.request(r)
		compare(t, ref, r, cookie, query)
		if t.Failed() {
			t.Fatalf("seed %d", *seed)
		}
		if _, ok := r.ID(cookie, query); ok {
			taken++
		}
	}
	// Headers that never have an id would prove little, and so would ones that always have.
	if taken < *cases/5 || taken > *cases*4/5 {
		t.Errorf("%d of %d generated headers have an id, want a mixture", taken, *cases)
	}
}

// A generator makes headers that are likely to meet a rule: few names, and all that is odd.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from []T) T {
	return from[g.IntN(len(from))]
}

// oneIn is true once in n calls.
func (g generator) oneIn(n int) bool {
	return g.IntN(n) == 0
}

// times repeats what it makes up to n times.
func (g generator) times(n int, one func() string) string {
	var b strings.Builder
	for range g.IntN(n + 1) {
		b.WriteString(one())
	}
	return b.String()
}

// request makes a cookie header, and a query string that often matters.
func (g generator) request(r *Rules) (cookie, query []byte) {
	var header string
	switch {
	case r.MaxInputNesting == tightNesting && g.oneIn(3):
		header = g.arrays(g.instance(r.Cookies[0]))
	case !g.oneIn(5):
		header = g.tokens(r, []string{";", "; ", "; ", "; ", ";;", "; ;", ",", "&", ";\t", " ; "})
	}
	if g.oneIn(10) {
		header = g.escapeSome(header)
	}
	var fields string
	if len(r.Query) > 0 && !g.oneIn(4) {
		fields = g.tokens(r, []string{"&", "&", "&", "&&", ";", "&+", "&%20"})
		if g.oneIn(2) {
			fields = g.escapeSome(fields)
		}
	}
	return []byte(g.spoil(header)), []byte(g.spoil(fields))
}

// tokens makes a few tokens, or about as many as PHP allows.
func (g generator) tokens(r *Rules, separators []string) string {
	separator := func() string { return pick(g, separators) }
	var b strings.Builder
	if r.MaxInputVars == 0 && g.oneIn(50) {
		b.WriteString(strings.Repeat("a;", 990+g.IntN(10)))
		b.WriteString(strings.Repeat("a&", 990+g.IntN(10)))
	}
	for range 1 + g.IntN(8) {
		b.WriteString(g.name(r))
		if !g.oneIn(12) {
			b.WriteString("=" + g.value(r))
		}
		b.WriteString(separator())
	}
	return b.String()
}

// arrays makes array elements at the end of the indices, then a name that is nested too deep, then a
// string: it is the id only if the array was not full.
func (g generator) arrays(name string) string {
	key := func() string {
		return "[" + pick(g, []string{"", "", " ", "\t", "a", "0", "1", "01", "-5", "-4", "9223372036854775806", lastIndex, lastIndex}) + "]"
	}
	deep := name + key() + key() + key() + "[]; "
	return g.times(4, func() string { return name + key() + g.times(2, key) + "; " }) + deep + name + "=abc"
}

// name makes a name that PHP may or may not take for one of the rules'.
func (g generator) name(r *Rules) string {
	name := pick(g, append(append([]string{"other"}, r.Cookies...), r.Query...))
	if IsPattern(name) {
		name = g.instance(name)
	}
	if g.oneIn(4) {
		name = strings.Map(func(c rune) rune {
			if c == '_' || g.oneIn(20) {
				return pick(g, []rune("_._ ["))
			}
			return c
		}, name)
	}
	if g.oneIn(8) {
		name = g.times(2, func() string { return pick(g, []string{" ", "\t", "\v", "\n", "\xa0", "[", "_", "."}) }) + name
	}
	if g.oneIn(12) {
		name += pick(g, []string{" ", "\t", "]", "[", "x", ".", "_", "\x00", "%00"})
	}
	if g.oneIn(3) {
		name += g.brackets(r)
	}
	return name
}

// instance makes a name that a pattern stands for, one of few.
func (g generator) instance(pattern string) string {
	var b strings.Builder
	for _, c := range pattern {
		switch c {
		case '*':
			b.WriteString(pick(g, []string{"", "1", "2", "a_b", "Sess"}))
		case '?':
			b.WriteString(pick(g, []string{"a", "b"}))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// brackets makes keys, often as many as PHP allows or one more, among them those that end a token early.
func (g generator) brackets(r *Rules) string {
	var b strings.Builder
	levels := 1 + g.IntN(tightNesting+1)
	if r.MaxInputNesting == 0 && g.oneIn(2) {
		levels = defaultMaxInputNesting - 1 + g.IntN(3)
	}
	for range levels {
		key := pick(g, []string{
			"", "", "", " ", "\t", "a", "0", "1", "-5", "-4", "[", "a[b", " a", "00", "-0", "+1",
			"9223372036854775806", lastIndex, lastIndex, "9223372036854775808", "-9223372036854775808",
			"__Host-", "__Secure-x", "__host-", "_.Host-",
		})
		b.WriteString("[" + key + "]")
	}
	b.WriteString(pick(g, []string{"", "", "", "", "[", "[a", "x", "]", "x[a]"}))
	return b.String()
}

// value makes an id or something near one.
func (g generator) value(r *Rules) string {
	switch {
	case r.IDPattern != nil && g.oneIn(2):
		return pick(g, []string{"id=", "t_0", "id%3D", "t_"}) + pick(g, []string{"a", "x", "", "%7C", "\xff"}) + pick(g, []string{"", "||b", "-1"})
	case r.Files && g.oneIn(6):
		return strings.Repeat("x", maxFileID-1+g.IntN(9)) + pick(g, []string{"", "", "%00", "%00_"})
	case r.Files && g.oneIn(6):
		return pick(g, []string{"a", "ab"}) + pick(g, []string{"", "%00", "%00/", "/"})
	case g.oneIn(10):
		return pick(g, []string{"", "", "%00", "%00a"})
	}
	return pick(g, []string{"a", "b", "abc", "0Z-"}) + g.times(4, func() string {
		if !g.oneIn(4) {
			return pick(g, []string{"a", "B", "7", "-", ",", "%2C", "%61", "%2d"})
		}
		return pick(g, []string{
			" ", "%20", "+", "%", "%0", "%zz", "%00", "%4", "_", "=", "'", `"`, "<", "%3E", "\\", "\t", "%0a", "\r",
			"/", ".", "[", "]", "\xff", "%FF", "`", ":", "\v", "%25", "%3B", "%7f",
		})
	})
}

// escapeSome encodes some bytes as a form does, or as no browser does.
func (g generator) escapeSome(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c != '&' && c != ';' && c != '=' && c != '%' && g.oneIn(8):
			fmt.Fprintf(&b, pick(g, []string{"%%%02x", "%%%02X"}), c)
		case c == ' ' && g.oneIn(2):
			b.WriteByte('+')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// spoil replaces a byte or two now and then.
func (g generator) spoil(s string) string {
	if s == "" || !g.oneIn(6) {
		return s
	}
	b := []byte(s)
	for range 1 + g.IntN(2) {
		b[g.IntN(len(b))] = pick(g, []byte("=;&[]. %+_\x00\t\xa0a0"))
	}
	return string(b)
}
