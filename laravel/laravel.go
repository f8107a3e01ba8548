// Package laravel finds the session id in a session cookie of Laravel, which is encrypted anew with every response.
//
// The cookie is the base64 text of a JSON object with the cipher text and what authenticates it. Inside is the id,
// after a hash of the cookie's name. The format is the one of Illuminate's Encrypter, EncryptCookies and Store, from
// version 6.18.27 on, which are the referee of the tests. Which cookie is the session's is not decided here.
package laravel

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"sync"
)

// Cookies opens cookies with the keys of an application. It may be used by several goroutines at once.
type Cookies struct {
	keys []*key
}

// key is one APP_KEY with what is made from it once. The HMACs are in pools: each serves one goroutine at a time, and a
// new one hashes the key again.
type key struct {
	block    cipher.Block
	gcm      cipher.AEAD
	mac      sync.Pool // of hash.Hash: HMAC-SHA256
	nameHash sync.Pool // of hash.Hash: HMAC-SHA1
}

// New returns Cookies with the application's keys: its APP_KEY, then its APP_PREVIOUS_KEYS. Each has 16 bytes, for
// AES-128, or 32, for AES-256; which of CBC and GCM the application uses shows in the cookie. An error names the place
// of a key in the list, and nothing of the key. New keeps no part of keys.
func New(keys [][]byte) (*Cookies, error) {
	c := new(Cookies)
	for i, raw := range keys {
		if len(raw) != 16 && len(raw) != 32 {
			return nil, fmt.Errorf("key %d must have 16 or 32 bytes; it has %d", i+1, len(raw))
		}
		k, err := newKey(bytes.Clone(raw))
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		c.keys = append(c.keys, k)
	}
	return c, nil
}

func newKey(raw []byte) (*key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	// One key serves both modes: which one the application uses shows in each cookie.
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &key{
		block:    block,
		gcm:      gcm,
		mac:      sync.Pool{New: func() any { return hmac.New(sha256.New, raw) }},
		nameHash: sync.Pool{New: func() any { return hmac.New(sha1.New, raw) }},
	}, nil
}

// Open returns the session id in the value of the cookie of that name, as PHP has it in $_COOKIE. It returns false for
// a value that the application would not take: for one that no key opens, one that was made for another cookie, and
// one with no session id in it. The id is Open's own.
//
// The caller bounds the length of value, and Open's time grows with it: PHP passes over any number of bytes that are no
// base64.
func (c *Cookies) Open(name string, value []byte) (id []byte, ok bool) {
	p, ok := readPayload(value)
	if !ok {
		return nil, false
	}
	for _, k := range c.keys {
		plain, ok := k.open(&p)
		if !ok {
			continue
		}
		// Any of the keys may have made the prefix, as in CookieValuePrefix::validate.
		if id, ok := c.afterPrefix(name, unserialized(plain)); ok && isID(id) {
			return id, true
		}
		return nil, false
	}
	return nil, false
}

// prefixLen is the length of the hash of a cookie's name in hex, and of the '|' after it.
const prefixLen = 2*sha1.Size + 1

// afterPrefix returns what follows the hash of the cookie's name. Without that hash a visitor could send a cookie of
// another name in the session's place.
func (c *Cookies) afterPrefix(name string, plain []byte) (rest []byte, ok bool) {
	if len(plain) < prefixLen {
		return nil, false
	}
	for _, k := range c.keys {
		var want [prefixLen]byte
		var sum [sha1.Size]byte
		hex.Encode(want[:], sumOf(&k.nameHash, sum[:0], []byte(name), []byte("v2")))
		want[prefixLen-1] = '|'
		if subtle.ConstantTimeCompare(plain[:prefixLen], want[:]) == 1 {
			return plain[prefixLen:], true
		}
	}
	return nil, false
}

// unserialized returns the string in PHP's serialized form of it, which EncryptCookies::$serialize = true makes. It
// returns what is no such form as it is.
func unserialized(plain []byte) []byte {
	const before, after = `s:81:"`, `";` // of prefixLen+idLen bytes
	if inner, ok := bytes.CutPrefix(plain, []byte(before)); ok && bytes.HasSuffix(inner, []byte(after)) {
		return inner[:len(inner)-len(after)]
	}
	return plain
}

// idLen is what Store::isValidId demands: 40 letters and digits. Any other value gets a new session.
const idLen = 40

func isID(id []byte) bool {
	for _, c := range id {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return len(id) == idLen
}

// open decrypts a payload, if the key is the one that it was made with.
func (k *key) open(p *payload) (plain []byte, ok bool) {
	if len(p.tag) > 0 && string(p.tag) != "0" { // both are empty() to PHP
		return k.openGCM(p)
	}
	var sum [sha256.Size]byte
	var mac [2 * sha256.Size]byte
	// Laravel authenticates the two base64 texts, not the bytes that they stand for.
	hex.Encode(mac[:], sumOf(&k.mac, sum[:0], p.iv, p.value))
	if subtle.ConstantTimeCompare(mac[:], p.mac) != 1 {
		return nil, false
	}
	iv, ok := strictBase64(p.iv)
	text := looseBase64(p.value)
	if !ok || len(iv) != aes.BlockSize || len(text) == 0 || len(text)%aes.BlockSize != 0 {
		return nil, false
	}
	// The MAC was right, so what the padding shows is no oracle.
	cipher.NewCBCDecrypter(k.block, iv).CryptBlocks(text, text)
	return withoutPadding(text)
}

// openGCM decrypts what AES-GCM has sealed: the tag takes the place of the MAC.
func (k *key) openGCM(p *payload) (plain []byte, ok bool) {
	iv, ok := strictBase64(p.iv)
	tag := looseBase64(p.tag)
	if !ok || len(iv) != k.gcm.NonceSize() || len(tag) != k.gcm.Overhead() {
		return nil, false
	}
	// looseBase64 has left room for the tag, and the text is decrypted in its own place.
	sealed := append(looseBase64(p.value), tag...)
	plain, err := k.gcm.Open(sealed[:0], iv, sealed, nil)
	return plain, err == nil
}

// withoutPadding removes the padding of PKCS #7. The text has at least one block, as open has seen to.
func withoutPadding(text []byte) (plain []byte, ok bool) {
	n := int(text[len(text)-1])
	if n == 0 || n > aes.BlockSize {
		return nil, false
	}
	for _, c := range text[len(text)-n:] {
		if int(c) != n {
			return nil, false
		}
	}
	return text[:len(text)-n], true
}

// sumOf appends the hash of two parts to dst. The pool saves the allocations of an HMAC for each cookie.
func sumOf(pool *sync.Pool, dst, one, two []byte) []byte {
	h := pool.Get().(hash.Hash)
	h.Reset()
	h.Write(one)
	h.Write(two)
	dst = h.Sum(dst)
	pool.Put(h)
	return dst
}

// payload is what the JSON object has, each a base64 text but mac, which is hex. With GCM mac is empty, and with CBC
// tag is; a cookie without either is opened by no key.
type payload struct {
	iv, value, mac, tag []byte
}

// readPayload reads a cookie's value. What does not look as Laravel writes it is left to encoding/json: PHP reads JSON
// in any form.
func readPayload(value []byte) (p payload, ok bool) {
	text := looseBase64(value)
	if p, ok := readPlainly(text); ok {
		return p, true
	}
	var fields map[string]json.RawMessage // not a struct, which would take "IV" for "iv"; PHP takes any number in others
	if json.Unmarshal(text, &fields) != nil {
		return payload{}, false
	}
	for _, f := range [...]struct {
		name     string
		to       *[]byte
		required bool
	}{{"iv", &p.iv, true}, {"value", &p.value, true}, {"mac", &p.mac, true}, {"tag", &p.tag, false}} {
		var s *string // nil: the field is null
		if v, given := fields[f.name]; given && json.Unmarshal(v, &s) != nil || s == nil && f.required {
			return payload{}, false
		}
		if s != nil {
			*f.to = []byte(*s)
		}
	}
	return p, true
}

// readPlainly reads the object as Laravel writes it: {"iv":"…","value":"…","mac":"…","tag":"…"}, without spaces and
// escapes; older versions have no tag. The payload is a part of text.
func readPlainly(text []byte) (p payload, ok bool) {
	for _, f := range [...]struct {
		before string
		to     *[]byte
	}{{`{"iv":"`, &p.iv}, {`,"value":"`, &p.value}, {`,"mac":"`, &p.mac}, {`,"tag":"`, &p.tag}} {
		if f.to == &p.tag && string(text) == "}" {
			return p, true
		}
		var found bool
		if text, found = bytes.CutPrefix(text, []byte(f.before)); !found {
			return payload{}, false
		}
		if *f.to, text, found = bytes.Cut(text, []byte{'"'}); !found || !isPlain(*f.to) {
			return payload{}, false
		}
	}
	return p, string(text) == "}"
}

// isPlain reports whether a JSON string is its own value: no escapes, no control characters, ASCII only.
func isPlain(s []byte) bool {
	for _, c := range s {
		if c == '\\' || c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// looseBase64 is PHP's base64_decode: what is no digit is passed over, '=' too, and an incomplete end is dropped.
func looseBase64(text []byte) []byte {
	trimmed := bytes.TrimRight(text, "=")
	decoded := make([]byte, base64.RawStdEncoding.DecodedLen(len(trimmed)), len(trimmed)+32) // room for a GCM tag
	if n, err := base64.RawStdEncoding.Decode(decoded, trimmed); err == nil && !bytes.ContainsAny(trimmed, "\r\n") {
		return decoded[:n]
	}
	digits := make([]byte, 0, len(text))
	for _, c := range text {
		if isDigit(c) {
			digits = append(digits, c)
		}
	}
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	n, _ := base64.RawStdEncoding.Decode(decoded, digits)
	return decoded[:n]
}

func isDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}

// strictBase64 is base64_decode with strict: white space and a missing padding are allowed, and nothing else.
func strictBase64(text []byte) (decoded []byte, ok bool) {
	digits, padding := 0, 0
	for _, c := range text {
		switch {
		case c == '=':
			padding++
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		case !isDigit(c) || padding > 0:
			return nil, false
		default:
			digits++
		}
	}
	if digits%4 == 1 || padding > 0 && (padding > 2 || (digits+padding)%4 != 0) {
		return nil, false
	}
	return looseBase64(text), true
}
