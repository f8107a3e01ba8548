package phpsession

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// FuzzIDAgainstPHP compares ID with PHP: go test -fuzz FuzzIDAgainstPHP -fuzztime 30s
func FuzzIDAgainstPHP(f *testing.F) {
	addCorpus(f)
	ref := newReferee(f)
	f.Fuzz(func(t *testing.T, rules byte, cookie, query []byte) {
		if len(cookie)+len(query) > 60_000 {
			t.Skip("more than PHP reads from one params record")
		}
		compare(t, ref, allRules[int(rules)%len(allRules)], cookie, query)
	})
}

// FuzzID holds what must be true of every id, without PHP.
func FuzzID(f *testing.F) {
	addCorpus(f)
	f.Fuzz(func(t *testing.T, rules byte, cookie, query []byte) {
		r := allRules[int(rules)%len(allRules)]
		cookieBefore, queryBefore := bytes.Clone(cookie), bytes.Clone(query)
		id, ok := r.ID(cookie, query)
		if !ok {
			if id != nil {
				t.Errorf("ID = %q without being ok", id)
			}
			return
		}
		if !r.Valid(id) || len(LockName(id)) == 0 || !bytes.HasPrefix(id, LockName(id)) {
			t.Errorf("%q is an id; valid %v, its lock's name %q", id, r.Valid(id), LockName(id))
		}
		again, ok := r.ID([]byte(string(cookie)+"\x00; PHPSESSID[]=x"), []byte(string(query)+"\x00&PHPSESSID[]=x"))
		if !ok || !bytes.Equal(again, id) {
			t.Errorf("ID = %q, and with more behind a NUL %q, %v", id, again, ok)
		}
		_ = append(id, "overwrites what stands behind the id"...)
		if !bytes.Equal(cookie, cookieBefore) || !bytes.Equal(query, queryBefore) {
			t.Errorf("the params have changed: cookie %q, query %q", cookie, query)
		}
		comesBack(t, r, id)
	})
}

// comesBack demands that an id is found again when it is sent the way PHP sends ids.
func comesBack(t *testing.T, r *Rules, id []byte) {
	t.Helper()
	if len(r.Cookies) == 0 || r.Cookies[0] == dotted.Cookies[0] || string(id) == "deleted" || r.IDPattern != nil {
		return
	}
	pair := []byte(strings.NewReplacer("*", "x", "?", "x").Replace(r.Cookies[0]) + "=")
	for _, c := range id {
		pair = fmt.Appendf(pair, "%%%02X", c)
	}
	if got, ok := r.ID(pair, nil); !ok || !bytes.Equal(got, id) {
		t.Errorf("ID(%q) = %q, %v; want %q", pair, got, ok, id)
	}
	if got, ok := r.FromSetCookie(append(pair, "; path=/"...)); !ok || !bytes.Equal(got, id) {
		t.Errorf("FromSetCookie(%q) = %q, %v; want %q", pair, got, ok, id)
	}
}

// addCorpus seeds with every case of the corpus whose rules the fuzzer can name.
func addCorpus(f *testing.F) {
	for _, c := range corpus {
		for i, r := range allRules {
			if r == c.rules {
				f.Add(byte(i), []byte(c.cookie), []byte(c.query))
			}
		}
	}
}
