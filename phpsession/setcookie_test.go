package phpsession

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

func TestFromSetCookie(t *testing.T) {
	yesterday := time.Now().Add(-24 * time.Hour).UTC()
	tomorrow := yesterday.Add(48 * time.Hour)
	gmt := func(when time.Time, layout string) string { return "; expires=" + when.Format(layout) }
	const rfc1123, dashes, rfc850 = "Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 02-Jan-2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT"
	for _, c := range []struct {
		name  string
		rules *Rules
		value string
		want  string
	}{
		{"as PHP sends it", plain, "PHPSESSID=abc; path=/", "abc"},
		{"with all attributes", plain, "PHPSESSID=abc" + gmt(tomorrow, rfc1123) + "; Max-Age=86400; path=/; domain=x.org; secure; HttpOnly; SameSite=Lax", "abc"},
		{"an encoded id", plain, "PHPSESSID=a%2Cb; path=/", "a,b"},
		{"another cookie", plain, "theme=dark; path=/", ""},
		{"another cookie that mentions ours", plain, "a=b; PHPSESSID=abc", ""},
		{"the second name", several, "B=abc; path=/", "abc"},
		{"a name of the query only", several, "C=abc; path=/", ""},
		{"an empty one", plain, "PHPSESSID=; path=/", ""},
		{"none at all", plain, "", ""},
		{"no equals sign", plain, "PHPSESSID; path=/", ""},
		{"an invalid id", plain, "PHPSESSID=a%20b; path=/", ""},
		{"an id that files refuses", files, "PHPSESSID=a_b; path=/", ""},
		{"as setcookie deletes it", plain, "PHPSESSID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0; path=/", ""},
		{"deleted without a date", plain, "PHPSESSID=deleted", ""},
		{"an id that begins like deleted", plain, "PHPSESSID=deleted1", "deleted1"},
		{"max-age zero", plain, "PHPSESSID=abc; Max-Age=0", ""},
		{"max-age below zero", plain, "PHPSESSID=abc; max-age=-1", ""},
		{"max-age that is no number", plain, "PHPSESSID=abc; Max-Age=0x", "abc"},
		{"max-age of nothing", plain, "PHPSESSID=abc; Max-Age=", "abc"},
		{"max-age of a minus", plain, "PHPSESSID=abc; Max-Age=-", "abc"},
		{"max-age beyond any number", plain, "PHPSESSID=abc; Max-Age=99999999999999999999", "abc"},
		{"max-age far below zero", plain, "PHPSESSID=abc; Max-Age=-99999999999999999999", ""},
		{"the last of two max-ages", plain, "PHPSESSID=abc; Max-Age=0; Max-Age=5", "abc"},
		{"max-age goes before a date", plain, "PHPSESSID=abc; Max-Age=5" + gmt(yesterday, rfc1123), "abc"},
		{"a date that is over", plain, "PHPSESSID=abc" + gmt(yesterday, rfc1123), ""},
		{"a date that is over, with dashes", plain, "PHPSESSID=abc" + gmt(yesterday, dashes), ""},
		{"a date that is over, with its weekday", plain, "PHPSESSID=abc" + gmt(yesterday, rfc850), ""},
		{"a date that is over, as C prints it", plain, "PHPSESSID=abc" + gmt(yesterday, time.ANSIC), ""},
		{"a date to come", plain, "PHPSESSID=abc" + gmt(tomorrow, rfc1123), "abc"},
		{"a date that is none", plain, "PHPSESSID=abc; expires=never", "abc"},
		{"spaces that a browser drops", plain, " PHPSESSID = abc ; path=/", "abc"},
		{"a name that PHP will change", under, "my.app=abc", "abc"},
		{"an array", plain, "PHPSESSID[]=abc", ""},
		{"a name that matches a pattern", hashed, "SESS0a1b=abc; path=/", "abc"},
		{"a name that a browser trims and PHP changes", ended, " my.session = abc; path=/", "abc"},
		{"a name that matches no pattern", hashed, "SES=abc; path=/", ""},
		{"a part of the value", part, "shop_1f=t_0a1b%7C%7C1700000000; path=/", "t_0a1b"},
		{"a value without that part", group, "A=abc; path=/", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, ok := c.rules.FromSetCookie([]byte(c.value))
			if got := string(id); got != c.want || ok != (c.want != "") {
				t.Errorf("FromSetCookie(%q) = %q, %v; want %q", c.value, got, ok, c.want)
			}
		})
	}
}

func TestAnIDGoesFromPHPToTheBrowserAndBack(t *testing.T) {
	ref := newReferee(t)
	g := generator{rand.New(rand.NewPCG(7, 0))}
	for _, r := range []*Rules{plain, files, under, host, secure} {
		for range 100 {
			// The application chooses an id, PHP encodes it; an invalid one becomes one of PHP's own.
			chosen := decode(nil, []byte(g.value(r)), false)
			if r.Files && (!r.Valid(chosen) || ref.refusesNUL && bytes.IndexByte(chosen, 0) >= 0) {
				continue // session_start() fails, and nothing is sent
			}
			sent := ref.normal.ask(t, question{name: r.Cookies[0], useCookies: true, files: r.Files, give: chosen})
			var header string
			for _, value := range sent.setCookie {
				header = value // of several, the browser keeps the last
			}
			id, ok := r.FromSetCookie([]byte(header))
			if !ok || !bytes.Equal(LockName(id), LockName(sent.id)) {
				t.Fatalf("FromSetCookie(%q) = %q, %v; PHP's id is %q", header, id, ok, sent.id)
			}
			pair, _ := cutToken([]byte(header), ';')
			if back, ok := r.ID(pair, nil); !ok || !bytes.Equal(back, id) {
				t.Errorf("ID(%q) = %q, %v; want %q", pair, back, ok, id)
			}
			compare(t, ref, r, pair, nil)
		}
	}
}
