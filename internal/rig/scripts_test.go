package rig_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func startSite(t *testing.T) (*rig.Site, *rig.Server) {
	t.Helper()
	r := rigtest.New(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	site := &rig.Site{FastCGI: php.Addr, Unbuffered: true}
	return site, rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
}

func TestScriptsSayWhatTheyPromise(t *testing.T) {
	site, nginx := startSite(t)
	body := strings.Repeat("0123456789", 1000)
	sum := fmt.Sprintf("%d %x\n", len(body), sha256.Sum256([]byte(body)))

	t.Run("upload.php hashes a body", func(t *testing.T) {
		resp, err := http.Post(site.URL("/upload.php"), "text/plain", strings.NewReader(body))
		if got, want := read(t, resp, err), sum; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("upload.php hashes a file", func(t *testing.T) {
		form, contentType := fileForm(t, body)
		resp, err := http.Post(site.URL("/upload.php"), contentType, form)
		if got, want := read(t, resp, err), sum; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("hash.php knows what big.php sends", func(t *testing.T) {
		big := get(t, site.URL("/big.php?mb=3"))
		if got, want := len(big), 3<<20; got != want {
			t.Errorf("length: got %d, want %d", got, want)
		}
		got, want := fmt.Sprintf("%x\n", sha256.Sum256([]byte(big))), get(t, site.URL("/hash.php?mb=3"))
		if got != want {
			t.Errorf("hash: got %q, want %q", got, want)
		}
	})
	t.Run("headers.php sets them all", func(t *testing.T) {
		resp, err := http.Get(site.URL("/headers.php?status=418&bytes=100"))
		read(t, resp, err)
		if got, want := resp.StatusCode, 418; got != want {
			t.Errorf("status: got %d, want %d", got, want)
		}
		if got, want := len(resp.Cookies()), 3; got != want {
			t.Errorf("cookies: got %d, want %d", got, want)
		}
		if got, want := fmt.Sprint(resp.Header["X-Rig"], len(resp.Header.Get("X-Long"))), "[a b] 100"; got != want {
			t.Errorf("headers: got %s, want %s", got, want)
		}
	})
	t.Run("empty.php is empty", func(t *testing.T) {
		if got, want := get(t, site.URL("/empty.php")), ""; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("stderr.php reaches the web server's log", func(t *testing.T) {
		get(t, site.URL("/stderr.php?say=hear-hear"))
		eventually(t, "the log has it", func() bool { return strings.Contains(nginx.Log(), "hear-hear") })
	})
	t.Run("die.php ends in the middle", func(t *testing.T) {
		resp, err := http.Get(site.URL("/die.php"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); len(got) == 0 || len(got) > 100<<10 {
			t.Errorf("got %d bytes and error %v, want up to 100 KB", len(got), err)
		}
	})
	t.Run("stream.php sends its parts one by one", func(t *testing.T) {
		resp, err := http.Get(site.URL("/stream.php?ms=60000"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		part := make([]byte, 7)
		if _, err := io.ReadFull(resp.Body, part); err != nil || string(part) != "part 1\n" {
			t.Errorf("got %q and error %v, want the first part", part, err)
		}
	})
}

func TestScriptsUseTheirSession(t *testing.T) {
	site, _ := startSite(t)
	browser := newClient(t)
	count := func() string { return browser.get(t, site.URL("/count.php")) }

	if got, want := browser.get(t, site.URL("/work.php"))+count(), "1\n1\n"; got != want {
		t.Errorf("work.php and count.php: got %q, want %q", got, want)
	}
	for _, how := range []string{"abort", "read"} { // neither keeps the count
		if got, want := browser.get(t, site.URL("/close.php?how="+how)), "2\nend\n"; got != want {
			t.Errorf("close.php?how=%s: got %q, want %q", how, got, want)
		}
	}
	browser.get(t, site.URL("/close.php?how=close"))
	browser.get(t, site.URL("/close.php?how=header"))
	if got, want := count(), "3\n"; got != want {
		t.Errorf("count after close.php: got %q, want %q", got, want)
	}

	browser.get(t, site.URL("/finish.php?ms=100")) // count.php waits for it inside session_start
	if got, want := count(), "4\n"; got != want {
		t.Errorf("count after finish.php: got %q, want %q", got, want)
	}
	ids := strings.Fields(browser.get(t, site.URL("/login.php")))
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Errorf("login.php: got ids %q, want two", ids)
	}
	if got, want := count(), "5\n"; got != want {
		t.Errorf("count under the new id: got %q, want %q", got, want)
	}
	if info := browser.get(t, site.URL("/info.php")); !strings.Contains(info, ids[1]) {
		t.Errorf("info.php: got %s, want session %s in it", info, ids[1])
	}
}

func fileForm(t *testing.T, content string) (io.Reader, string) {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "file.txt")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(part, content)
	w.Close()
	return &form, w.FormDataContentType()
}

func read(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
