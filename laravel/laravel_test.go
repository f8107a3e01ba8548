package laravel

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

const (
	sessionID = "abcdefghijABCDEFGHIJ0123456789klmnoKLMNO"
	name      = "laravel_session"
)

var (
	key32 = bytes.Repeat([]byte("k"), 32)
	key16 = bytes.Repeat([]byte("q"), 16)
)

// variant is one of the ciphers, with a key for it.
type variant struct {
	cipher string
	key    []byte
}

// GCM is there since version 8.
var variants = []variant{{"AES-256-CBC", key32}, {"AES-128-CBC", key16}, {"AES-256-GCM", key32}, {"AES-128-GCM", key16}}

func newCookies(tb testing.TB, keys ...[]byte) *Cookies {
	tb.Helper()
	c, err := New(keys)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// referee is a PHP with Illuminate.
type referee struct {
	in  io.Writer
	out *bufio.Reader
}

// newReferee starts PHP. It skips the test where there is none, except in CI.
func newReferee(tb testing.TB) *referee {
	tb.Helper()
	php, err := exec.LookPath("php")
	if _, missing := os.Stat("/usr/share/php/Illuminate/Cookie/autoload.php"); err == nil {
		err = missing
	}
	if err != nil {
		const hint = "apt-get install php-cli php-illuminate-cookie php-illuminate-encryption php-illuminate-http php-illuminate-session"
		rigtest.Lack(tb, fmt.Sprintf("Illuminate is not installed (%s): %v", hint, err))
	}
	cmd := exec.Command(php, "-d", "error_reporting=E_ALL & ~E_DEPRECATED", "-d", "display_errors=stderr", "testdata/judge.php")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the referee: %v", err)
		}
	})
	return &referee{in, bufio.NewReader(out)}
}

// question is one for the referee; see testdata/judge.php.
type question struct {
	Key       []byte `json:"key"`
	Cipher    string `json:"cipher"`
	Name      string `json:"name"`
	Serialize bool   `json:"serialize,omitempty"`
	Make      string `json:"make,omitempty"`
	Open      string `json:"open,omitempty"`
}

func (ref *referee) ask(tb testing.TB, q question) string {
	tb.Helper()
	text, err := json.Marshal(q)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := fmt.Fprintf(ref.in, "%s\n", text); err != nil {
		tb.Fatal(err)
	}
	answer, err := ref.out.ReadString('\n')
	if err != nil {
		tb.Fatalf("no answer to %s: %v", text, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

func TestOpensWhatIlluminateSends(t *testing.T) {
	ref := newReferee(t)
	for _, v := range variants {
		for _, serialize := range []bool{false, true} {
			t.Run(fmt.Sprint(v.cipher, serialize), func(t *testing.T) {
				q := question{Key: v.key, Cipher: v.cipher, Name: name, Serialize: serialize, Make: sessionID}
				value := []byte(ref.ask(t, q))
				other := bytes.Repeat([]byte("o"), len(v.key))
				for what, keys := range map[string][][]byte{
					"its key": {v.key}, "a previous key": {other, v.key}, "the key before another": {v.key, other},
				} {
					if id, ok := newCookies(t, keys...).Open(name, value); string(id) != sessionID || !ok {
						t.Errorf("%s: Open = %q, %v; want the session id", what, id, ok)
					}
				}
				if id, ok := newCookies(t, other).Open(name, value); ok {
					t.Errorf("another key: Open = %q, want none", id)
				}
				if id, ok := newCookies(t, v.key).Open("XSRF-TOKEN", value); ok {
					t.Errorf("another cookie: Open = %q, want none", id)
				}
			})
		}
	}
}

// TestTakesTheIDsThatIlluminateTakes changes cookies in ways that leave some of them valid, and asks Illuminate.
func TestTakesTheIDsThatIlluminateTakes(t *testing.T) {
	ref := newReferee(t)
	g := rand.New(rand.NewPCG(3, 0))
	opened, n := 0, 0
	for range 300 {
		for _, v := range variants {
			c := newCookies(t, v.key)
			id := sessionID
			if g.IntN(8) == 0 {
				id = []string{"", "short", sessionID + "x", sessionID[:39] + "-", sessionID[:39] + "\xe9"}[g.IntN(5)]
			}
			text := forge(v, name, id)
			if g.IntN(4) > 0 {
				text = changes[g.IntN(len(changes))].change(g, text)
			}
			value := base64.StdEncoding.EncodeToString([]byte(text))
			if g.IntN(3) == 0 {
				value = spoilBase64(g, value)
			}
			want := ref.ask(t, question{Key: v.key, Cipher: v.cipher, Name: name, Open: hex.EncodeToString([]byte(value))})
			got, ok := c.Open(name, []byte(value))
			if string(got) != want || ok != (want != "") {
				t.Errorf("%s: %s\n Open = %q, %v; Illuminate takes %q", v.cipher, text, got, ok, want)
			}
			n++
			if ok {
				opened++
			}
		}
	}
	if opened < n/4 || opened > n*3/4 {
		t.Errorf("%d of %d cookies have an id, want a mixture", opened, n)
	}
}

// forge makes the JSON text of a cookie as Laravel does.
func forge(v variant, name, id string) string {
	h := hmac.New(sha1.New, v.key)
	h.Write([]byte(name + "v2"))
	plain := fmt.Appendf(nil, "%x|%s", h.Sum(nil), id)
	block, _ := aes.NewCipher(v.key)
	b64 := base64.StdEncoding.EncodeToString
	if strings.HasSuffix(v.cipher, "GCM") {
		gcm, _ := cipher.NewGCM(block)
		iv := []byte("twelve bytes")
		sealed := gcm.Seal(nil, iv, plain, nil)
		cut := len(sealed) - gcm.Overhead()
		return fmt.Sprintf(`{"iv":"%s","value":"%s","mac":"","tag":"%s"}`, b64(iv), b64(sealed[:cut]), b64(sealed[cut:]))
	}
	iv := []byte("sixteen bytes \xfb\xff")
	padding := aes.BlockSize - len(plain)%aes.BlockSize
	plain = append(plain, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	m := hmac.New(sha256.New, v.key)
	m.Write([]byte(b64(iv) + b64(plain)))
	return fmt.Sprintf(`{"iv":"%s","value":"%s","mac":"%x","tag":""}`, b64(iv), b64(plain), m.Sum(nil))
}

var changes = []struct {
	what   string
	change func(*rand.Rand, string) string
}{
	{"no tag", func(_ *rand.Rand, s string) string { return strings.Replace(s, `,"tag":""`, "", 1) }},
	{"spaces", func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, `:`, " :\n") }},
	{"escaped slashes", func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "/", `\/`) }},
	{"escaped letters", func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "A", `\u0041`) }},
	{"more fields", func(_ *rand.Rand, s string) string { return `{"x":[1,{"iv":2}],` + s[1:] }},
	{"a number that is too large", func(_ *rand.Rand, s string) string { return `{"x":1e999,` + s[1:] }},
	{"a field twice", func(_ *rand.Rand, s string) string { return `{"mac":"x",` + s[1:] }},
	{"a field in capitals", func(_ *rand.Rand, s string) string { return s[:len(s)-1] + `,"IV":"x"}` }},
	{"a field twice, and the last one wrong", func(_ *rand.Rand, s string) string { return s[:len(s)-1] + `,"mac":"x"}` }},
	{"a tag that is null", func(_ *rand.Rand, s string) string { return strings.Replace(s, `"tag":""`, `"tag":null`, 1) }},
	{"a tag that is 0", func(_ *rand.Rand, s string) string { return strings.Replace(s, `"tag":""`, `"tag":"0"`, 1) }},
	{"a tag too many", func(_ *rand.Rand, s string) string {
		return strings.Replace(s, `"tag":""`, `"tag":"AAAAAAAAAAAAAAAAAAAAAA=="`, 1)
	}},
	{"a mac that is null", func(_ *rand.Rand, s string) string { return strings.Replace(s, `"mac":""`, `"mac":null`, 1) }},
	{"no padding", func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "=", "") }},
	{"a line end within base64", func(_ *rand.Rand, s string) string { return strings.Replace(s, `":"`, `":"\n`, 1) }},
	{"something after it", func(_ *rand.Rand, s string) string { return s + " \n" }},
	{"something wrong after it", func(_ *rand.Rand, s string) string { return s + "}" }},
	{"no object", func(_ *rand.Rand, s string) string { return "[" + s + "]" }},
	{"a byte", func(g *rand.Rand, s string) string {
		i := g.IntN(len(s))
		return s[:i] + string("aZ0=/+\" \\\x00\xff"[g.IntN(11)]) + s[i+1:]
	}},
	{"a cut", func(g *rand.Rand, s string) string { return s[:g.IntN(len(s))] }},
}

func spoilBase64(g *rand.Rand, s string) string {
	i := g.IntN(len(s) + 1)
	return s[:i] + []string{"=", " ", "\n", "-", "_", "%", "==", "\x01", "\xff"}[g.IntN(9)] + s[i:]
}

func TestValuesThatAreNoCookieOfLaravels(t *testing.T) {
	c := newCookies(t, key32)
	for what, value := range map[string]string{
		"empty":                 "",
		"a plain id":            sessionID,
		"8 KB":                  strings.Repeat("abcd", 2048),
		"8 KB of brackets":      base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("["), 6000)),
		"a number":              base64.StdEncoding.EncodeToString([]byte("7")),
		"empty fields":          base64.StdEncoding.EncodeToString([]byte(`{"iv":"","value":"","mac":"","tag":""}`)),
		"a tag and no iv":       base64.StdEncoding.EncodeToString([]byte(`{"iv":"","value":"","mac":"","tag":"AAAA"}`)),
		"fields that are lists": base64.StdEncoding.EncodeToString([]byte(`{"iv":[],"value":[],"mac":[],"tag":[]}`)),
	} {
		if id, ok := c.Open(name, []byte(value)); ok {
			t.Errorf("%s: Open = %q, want none", what, id)
		}
	}
}

// PHP passes over what is no base64, however much there is of it.
func TestLongValuesAreOpened(t *testing.T) {
	ref := newReferee(t)
	for _, v := range variants {
		for _, n := range []int{4000, 60_000} {
			value := base64.StdEncoding.EncodeToString([]byte(forge(v, name, sessionID))) + strings.Repeat("!", n)
			q := question{Key: v.key, Cipher: v.cipher, Name: name, Open: hex.EncodeToString([]byte(value))}
			if want := ref.ask(t, q); want != sessionID {
				t.Fatalf("%s: Illuminate takes %q", v.cipher, want)
			}
			if id, ok := newCookies(t, v.key).Open(name, []byte(value)); !ok || string(id) != sessionID {
				t.Errorf("%s, and %d bytes: Open = %q, %v; want the session id", v.cipher, n, id, ok)
			}
		}
	}
}

func TestErrorsOfKeysTellNothingOfThem(t *testing.T) {
	const secret = "secret-key-of-the-wrong-length"
	_, err := New([][]byte{key32, []byte(secret)})
	if err == nil || !strings.Contains(err.Error(), "key 2") || strings.Contains(err.Error(), secret) {
		t.Errorf("got error %v, want one that names key 2 and nothing of it", err)
	}
	if _, err := New([][]byte{nil}); err == nil {
		t.Error("an empty key: got no error")
	}
}

func TestIDIsItsOwn(t *testing.T) {
	for _, v := range variants {
		value := []byte(base64.StdEncoding.EncodeToString([]byte(forge(v, name, sessionID))))
		id, ok := newCookies(t, v.key).Open(name, value)
		clear(value)
		if !ok || string(id) != sessionID {
			t.Errorf("%s: Open = %q, %v; want the session id", v.cipher, id, ok)
		}
	}
}

// FuzzOpen wants no value to be more than a session id or none: go test ./laravel -fuzz FuzzOpen -fuzztime 30s
func FuzzOpen(f *testing.F) {
	for _, v := range variants {
		f.Add([]byte(base64.StdEncoding.EncodeToString([]byte(forge(v, name, sessionID)))))
		for _, c := range changes {
			text := c.change(rand.New(rand.NewPCG(1, 0)), forge(v, name, sessionID))
			f.Add([]byte(base64.StdEncoding.EncodeToString([]byte(text))))
		}
	}
	c := newCookies(f, key32, key16)
	f.Fuzz(func(t *testing.T, value []byte) {
		before := bytes.Clone(value)
		id, ok := c.Open(name, value)
		if ok != (len(id) == idLen) || ok && string(id) != sessionID {
			t.Errorf("Open(%q) = %q, %v", value, id, ok)
		}
		if !bytes.Equal(value, before) {
			t.Errorf("Open has changed %q to %q", before, value)
		}
	})
}

// BenchmarkOpen measures what a request with a session pays, and one with a cookie that does not open.
func BenchmarkOpen(b *testing.B) {
	for _, v := range variants {
		for what, keys := range map[string][][]byte{"": {v.key}, " by the third key": {key16, bytes.Repeat([]byte("o"), 32), v.key}} {
			b.Run(v.cipher+what, func(b *testing.B) {
				c := newCookies(b, keys...)
				value := []byte(base64.StdEncoding.EncodeToString([]byte(forge(v, name, sessionID))))
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := c.Open(name, value); !ok {
						b.Fatal("does not open")
					}
				}
			})
		}
	}
	b.Run("none, of 4 KB", func(b *testing.B) {
		c := newCookies(b, key32)
		value := bytes.Repeat([]byte("abcd"), 1024)
		for b.Loop() {
			c.Open(name, value)
		}
	})
}
