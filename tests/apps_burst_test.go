package tests

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// dismissPointers closes hints of WordPress at once. The list of those that are closed is user meta, which each request
// reads, changes and writes.
func dismissPointers(v *visitor) (updates, lost int) {
	const n = 8
	beginWordPress(v)
	dismiss := func(v *visitor, name string) string {
		return v.post("/wp/wp-admin/admin-ajax.php", url.Values{"action": {"dismiss-wp-pointer"}, "pointer": {name}})
	}
	names := make([]string, n)
	v.atOnce(n, func(part *visitor, i int) {
		names[i] = part.newName()
		if got := dismiss(part, names[i]); got != "1" {
			v.t.Errorf("closing a hint: got %.300q, want 1", got)
		}
	})
	for _, name := range names {
		if dismiss(v, name) == "1" { // 0: it is closed already
			lost++
		}
	}
	return n, lost
}

// openEditForms logs in and opens forms to edit pages at once. The secret of their tokens is in the session, and is made
// for the first of them: a form whose secret is overwritten cannot be saved.
func openEditForms(v *visitor) (updates, lost int) {
	const n = 8
	login := v.query(url.Values{"action": {"query"}, "meta": {"tokens"}, "type": {"login"}})
	v.wants(v.post("/w/api.php", url.Values{
		"action": {"login"}, "format": {"json"}, "lgname": {"Visitor"}, "lgpassword": {"secret-secret"},
		"lgtoken": {login.Query.Tokens.Login},
	}), `"Success"`)
	var paths []string
	for i := range n {
		paths = append(paths, fmt.Sprintf("/w/index.php?title=Page%d&action=edit", i))
	}
	for _, page := range v.all(paths...) {
		token := hidden(strings.ReplaceAll(page, "'", `"`)).Get("wpEditToken")
		if token == "" {
			v.t.Fatalf("a form has no token: %.600q", page)
		}
		check := v.query(url.Values{"action": {"checktoken"}, "type": {"csrf"}, "token": {token}})
		switch check.Checktoken.Result {
		case "valid":
		case "invalid":
			lost++
		default:
			v.t.Errorf("got %+v for a token", check)
		}
	}
	return n, lost
}

// wikiAnswer is what MediaWiki's API returns of tokens.
type wikiAnswer struct {
	Query struct {
		Tokens struct {
			Login string `json:"logintoken"`
		}
	}
	Checktoken struct{ Result string }
}

// query asks MediaWiki's API.
func (v *visitor) query(values url.Values) (a wikiAnswer) {
	v.t.Helper()
	values.Set("format", "json")
	text := v.get("/w/api.php?" + values.Encode())
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		v.t.Fatalf("%v: %.300q", err, text)
	}
	return a
}
