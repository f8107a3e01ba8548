package page

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestThePageIsServedUnderAStrictPolicy(t *testing.T) {
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8",
		"/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		w := serve("GET", path, nil)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != contentType || w.Body.Len() == 0 {
			t.Errorf("%s: got status %d, type %q and %d bytes, want 200 and %q", path, w.Code, w.Header().Get("Content-Type"), w.Body.Len(), contentType)
		}
		got := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(got, "default-src 'none'; ") || strings.Contains(got, "unsafe") || strings.Contains(got, "*") {
			t.Errorf("%s: policy %q, want a strict one", path, got)
		}
		if got, want := w.Header().Get("X-Content-Type-Options"), "nosniff"; got != want {
			t.Errorf("%s: X-Content-Type-Options: got %q, want %q", path, got, want)
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	for _, path := range []string{"/page.html", "/page.go", "/favicon.ico", "/locks", "/x/page.js"} {
		if got, want := serve("GET", path, nil).Code, http.StatusNotFound; got != want {
			t.Errorf("%s: got status %d, want %d", path, got, want)
		}
	}
	if got, want := serve("POST", "/", nil).Code, http.StatusMethodNotAllowed; got != want {
		t.Errorf("POST: got status %d, want %d", got, want)
	}
	if got, want := serve("HEAD", "/", nil).Code, http.StatusOK; got != want {
		t.Errorf("HEAD: got status %d, want %d", got, want)
	}
}

func TestAnUnchangedFileIsNotSentAgain(t *testing.T) {
	for _, encoding := range []string{"", "gzip, br"} {
		tag := serve("GET", "/page.js", http.Header{"Accept-Encoding": {encoding}}).Header().Get("Etag")
		w := serve("GET", "/page.js", http.Header{"Accept-Encoding": {encoding}, "If-None-Match": {tag}})
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("encoding %q, tag %q: got status %d and %d bytes, want 304 and none", encoding, tag, w.Code, w.Body.Len())
		}
	}
}

// TestThePageIsSmall counts what goes over the wire: an operator may sit behind a slow tunnel.
func TestThePageIsSmall(t *testing.T) {
	sum := 0
	for _, path := range []string{"/", "/page.css", "/page.js", "/icon.svg"} {
		w := serve("GET", path, http.Header{"Accept-Encoding": {"gzip"}})
		if got, want := w.Header().Get("Content-Encoding"), "gzip"; got != want {
			t.Errorf("%s: encoding %q, want %q", path, got, want)
		}
		sum += w.Body.Len()
	}
	if most := 21 << 10; sum > most {
		t.Errorf("the page takes %d bytes, want %d at most", sum, most)
	}
}

// TestThePageNamesNoOtherPlace: what is not in the files need not be refused by the browser.
func TestThePageNamesNoOtherPlace(t *testing.T) {
	for _, f := range files {
		text := strings.ReplaceAll(string(f.plain), "http://www.w3.org/2000/svg", "")
		for _, never := range []string{"http:", "https:", "//cdn", "@import", "innerHTML", "style=\"", "onclick=\"", "<script>", "<style"} {
			if strings.Contains(text, never) {
				t.Errorf("%s has %q in it", f.path, never)
			}
		}
	}
}

func serve(method, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, io.NopCloser(strings.NewReader("")))
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}
