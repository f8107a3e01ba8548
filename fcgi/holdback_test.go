package fcgi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestLastByteOfStdinIsHeldBack(t *testing.T) {
	for length := 1; length < 400; length += 7 {
		for range 20 {
			var pieces [][]byte // as a scan passes them on: no header is cut
			for left := length; left > 0; {
				n := 1 + rand.IntN(left)
				record := padded(TypeStdin, 1, strings.Repeat("x", n), rand.IntN(9))
				cut := headerLen + rand.IntN(len(record)-headerLen+1)
				pieces = append(pieces, record[:cut], record[cut:])
				left -= n
			}
			pieces = append(pieces, padded(TypeStdin, 1, "", rand.IntN(3)))
			h := holdback{left: int64(length) - 1}
			var sent []byte
			for _, piece := range pieces {
				sent = append(sent, h.split(piece)...)
			}
			all := joined(pieces...)
			if !bytes.Equal(append(bytes.Clone(sent), h.held...), all) {
				t.Fatalf("%d bytes in %q: sent %q, held back %q", length, pieces, sent, h.held)
			}
			if content := contentIn(sent); content != length-1 {
				t.Fatalf("%d bytes in %q: sent %d of them", length, pieces, content)
			}
		}
	}
}

// contentIn counts the bytes of content in records, of which the last may be cut.
func contentIn(b []byte) (n int) {
	for len(b) > 0 {
		h := ParseHeader(b)
		b = b[headerLen:]
		n += min(h.ContentLength, len(b))
		b = b[min(h.ContentLength+h.PaddingLength, len(b)):]
	}
	return n
}

// slowRequest is a POST whose body has come up to its last bytes; rest is these.
func slowRequest(f *fpm, query, contentType, body string, more ...string) (come, rest []byte) {
	length := strconv.Itoa(len(body))
	pairs := append([]string{"REQUEST_METHOD", "POST", "CONTENT_LENGTH", length, "CONTENT_TYPE", contentType}, more...)
	all := requestOf(1, true, body, f.params("late.php", query, pairs...)...)
	cut := len(all) - headerLen - 20
	return all[:cut], all[cut:]
}

const (
	multipart  = "multipart/form-data; boundary=XX"
	uploadHead = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n"
)

// lateBodies are of all kinds that PHP tells apart.
var lateBodies = map[string]struct{ contentType, body string }{
	"a form":                 {"application/x-www-form-urlencoded", "a=" + strings.Repeat("form", 50_000)},
	"a short form":           {"application/x-www-form-urlencoded", "a=" + strings.Repeat("form", 10)},
	"an upload":              {multipart, uploadHead + strings.Repeat("file", 50_000) + "\r\n--XX--\r\n"},
	"an upload with a tail":  {multipart, uploadHead + "file\r\n--XX--\r\n" + strings.Repeat("tail", 10)},
	"JSON":                   {"application/json", `"` + strings.Repeat("json", 50_000) + `"`},
	"a body without a type":  {"", strings.Repeat("none", 50_000)},
	"a body of unknown type": {"application/x-unknown", strings.Repeat("what", 50_000)},
}

// lateScript prints what it has got of its body, and notes when it begins.
const lateScript = `touch($_GET['f'] . '.on');
	echo strlen(file_get_contents('php://input')), ' ', strlen($_POST['a'] ?? ''), ' ', $_FILES['f']['size'] ?? 0, ' ', $_FILES['f']['error'] ?? 0;`

func TestPHPRunsNoPOSTBeforeTheLastByteOfItsBody(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 4})
		f.script("late.php", lateScript)
		for name, c := range lateBodies {
			for when, gone := range map[string]bool{"": false, ", whose web server has gone": true} {
				t.Run(name+when, func(t *testing.T) {
					mark := filepath.Join(t.TempDir(), "mark")
					come, rest := slowRequest(f, "f="+mark, c.contentType, c.body)
					called, done := make(chan struct{}), make(chan struct{})
					sent := make(chan struct{})
					pool := newPool(t, nil, f.addr)
					run := start(t, pool, "unix", func(x *Exchange) {
						x.ContentLength = int64(len(c.body))
						x.Sent = func() { close(sent) }
						x.Late = func(context.Context) {
							close(called)
							<-done
						}
					}, come)
					if sooner(called, 30*time.Millisecond) {
						t.Error("Late was called before the body had come")
					}
					run.web.send(rest)
					receive(t, "the call of Late", called)
					if gone {
						run.web.Close()
					}
					if sooner(sent, 50*time.Millisecond) || exists(mark+".on") || run.isEnded() {
						t.Error("the script has begun before Late has returned")
					}
					close(done)
					if gone {
						await(t, "the script runs", func() bool { return exists(mark + ".on") })
						if err := run.result(); !errors.Is(err, ErrHungUp) {
							t.Errorf("got %v, want ErrHungUp", err)
						}
						return
					}
					f.mustPrintAll(t, run, c.contentType, c.body)
					receive(t, "the call of Sent", sent)
					if s := pool.Stats(); network == "unix" && s.Idle != 1 {
						t.Errorf("got %+v, want a connection that can be used again", s)
					}
				})
			}
		}
	})
}

// mustPrintAll checks that the script has had all of its body.
func (f *fpm) mustPrintAll(t *testing.T, run *running, contentType, body string) {
	t.Helper()
	want := fmt.Sprintf("%d 0 0 0", len(body))
	if kind, _, _ := strings.Cut(contentType, ";"); kind == "multipart/form-data" {
		want = fmt.Sprintf("0 0 %d 0", strings.Count(body, "file")*4-4*strings.Count(body, "filename"))
	} else if strings.HasPrefix(body, "a=") {
		want = fmt.Sprintf("%d %d 0 0", len(body), len(body)-2)
	}
	if got := run.web.response(1); got.body() != want {
		t.Errorf("PHP got %q of its body, want %q", got.body(), want)
	}
	if err := run.result(); err != nil {
		t.Error(err)
	}
}

// PHP may give up multipart/form-data, and run the script before the body is there; no body of another type.
func TestPHPGivesUpMultipartBodiesOnly(t *testing.T) {
	const field = "--XX\r\nContent-Disposition: form-data; name=\"a[]\"\r\n\r\nvalue\r\n"
	const nameless = "--XX\r\nContent-Disposition: form-data\r\n\r\nvalue\r\n"
	form, tail := "application/x-www-form-urlencoded", strings.Repeat("tail", 25_000)
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 2})
	f.script("late.php", `touch($_GET['f'] . '.on'); echo 'x'; while (ob_get_level()) ob_end_flush(); flush();`)
	for name, c := range map[string]struct {
		contentType, body string
		early             bool
	}{
		"a part without a name":  {multipart, field + nameless + tail, true},
		"no boundary":            {"multipart/form-data", field + tail, true},
		"a boundary that is cut": {"Multipart/Form-Data, boundary=\"XX", field + tail, true},
		"too many parts":         {multipart, strings.Repeat(field, 1200) + tail, true},
		"too many fields":        {form, strings.Repeat("a[]=1&", 3000) + tail, false},
		"fields that are deep":   {form, "a" + strings.Repeat("[a]", 500) + "=1&" + tail, false},
		"a form that is garbled": {form + "; boundary=XX", "%%%=&&&=\x00&" + field + tail, false},
		"text":                   {"text/plain", tail, false},
		"broken JSON":            {"application/json", "{" + tail, false},
		"another multipart":      {"multipart/mixed; boundary=XX", nameless + tail, false},
		"a type that is cut":     {";", tail, false},
	} {
		t.Run(name, func(t *testing.T) {
			mark := filepath.Join(t.TempDir(), "mark")
			come, rest := slowRequest(f, "f="+mark, c.contentType, c.body)
			begun, x := false, (*Exchange)(nil)
			run := start(t, newPool(t, nil, f.addr), "unix", func(e *Exchange) {
				x, e.ContentLength = e, int64(len(c.body))
				e.Late = func(context.Context) { begun = sooner(appears(mark+".on"), 30*time.Millisecond) }
			}, come)
			if c.early {
				_, _ = run.web.record()
			}
			run.web.send(rest)
			_ = run.web.response(1)
			_ = run.result()
			if begun || x.RespondedEarly() != c.early {
				t.Errorf("begun: %t; responded early: %t, want %t", begun, x.RespondedEarly(), c.early)
			}
		})
	}
}

// appears returns a channel that is closed if a file is there.
func appears(file string) <-chan struct{} {
	there := make(chan struct{})
	go func() {
		for range 20 {
			if exists(file) {
				close(there)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return there
}

// Where PHP does not wait for the body, Late is over when it responds, and the rest of the body passes.
func TestLateEndsWhenPHPRespondsBeforeTheBodyIsThere(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 4, INI: map[string]string{"post_max_size": "100000"}})
		f.script("late.php", `if (isset($_GET['wait'])) { `+untilTold+` }
			while (ob_get_level()) ob_end_flush(); echo 'x'; flush(); `+lateScript)
		body, atOnce := strings.Repeat("body", 50_000), []string{"PHP_VALUE", "enable_post_data_reading=0"}
		for name, c := range map[string]struct {
			body, want string
			more       []string
			called     bool // Late is called before the script responds
		}{
			"too long":                       {body, "x200000 0 0 0", nil, false},
			"read by the script":             {body[:90_000], "x90000 0 0 0", atOnce, false},
			"PUT":                            {body[:90_000], "x90000 0 0 0", []string{"REQUEST_METHOD", "PUT"}, false},
			"read by the script, and called": {body[:90_000], "x90000 0 0 0", atOnce, true},
		} {
			t.Run(name, func(t *testing.T) {
				mark := filepath.Join(t.TempDir(), "mark")
				query := "f=" + mark
				if c.called {
					query += "&wait=1"
				}
				come, rest := slowRequest(f, query, "application/octet-stream", c.body, c.more...)
				if c.called {
					come, rest = joined(come, rest), nil
				}
				over := make(chan struct{})
				run := start(t, newPool(t, nil, f.addr), "unix", func(x *Exchange) {
					x.ContentLength = int64(len(c.body))
					x.Late = func(ctx context.Context) {
						touch(t, mark+".end")
						<-ctx.Done()
						close(over)
					}
				}, come)
				_, begin := run.web.record()
				run.web.send(rest)
				if got := string(begin) + run.web.response(1).stdout; !strings.HasSuffix(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				_ = run.result()
				if c.called {
					receive(t, "the end of Late", over)
				}
			})
		}
	})
}

// Once PHP-FPM has begun to answer, no more is held back, wherever the records of its body are cut by then.
func TestStdinGoesOnWhenPHPRespondsInTheMiddleOfARecord(t *testing.T) {
	body := "a body whose last record begins early"
	head := joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1, "A", "1"))
	stdin := joined(padded(TypeStdin, 1, body[:30], 5), padded(TypeStdin, 1, body[30:], 7), stdinOf(1, ""))
	for name, length := range map[string]int{
		"of its length": len(body), "of less": 20, "of more": len(body) + 20,
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, network string) {
				for first := 0; first < len(stdin); first += 11 {
					read := make(chan string, 1)
					pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
						if r, err := p.head(); err == nil {
							p.send(AppendRecord(nil, TypeStdout, r.id, []byte("\r\nearly")))
							rest := ""
							for {
								_, content, err := p.take(&r)
								if err != nil || len(content) == 0 {
									break
								}
								rest += string(content)
							}
							read <- rest
							p.answer(r.id, "")
							p.ended()
						}
					}))
					run := start(t, pool, network, func(x *Exchange) {
						x.Late, x.ContentLength = func(context.Context) {}, int64(length)
					}, head, stdin[:first])
					if _, content, err := readRecord(run.web); err != nil || string(content) != "\r\nearly" {
						t.Fatalf("got %q and %v", content, err)
					}
					for i := first; i < len(stdin); i++ {
						run.web.send(stdin[i : i+1])
						await(t, "a byte is read", func() bool { return unreadBytes(t, run.conn, run.web) == 0 })
					}
					if got := receive(t, "all of stdin", read); got != body {
						t.Errorf("responded after %d bytes: PHP got %q, want %q", first, got, body)
					}
					run.web.response(1)
					if err := run.result(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func TestLateIsCalledBeforeAScriptWithAPartOfItsBody(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 4})
		f.script("late.php", lateScript)
		for name, c := range lateBodies {
			t.Run(name, func(t *testing.T) {
				mark := filepath.Join(t.TempDir(), "mark")
				come, _ := slowRequest(f, "f="+mark, c.contentType, c.body)
				called, done := make(chan struct{}), make(chan struct{})
				run := start(t, newPool(t, nil, f.addr), "unix", func(x *Exchange) {
					x.ContentLength = int64(len(c.body))
					x.Late = func(context.Context) {
						close(called)
						<-done
					}
				}, come)
				run.web.Close()
				receive(t, "the call of Late", called)
				time.Sleep(30 * time.Millisecond)
				if exists(mark+".on") || run.isEnded() {
					t.Error("the script has begun before Late has returned")
				}
				close(done)
				await(t, "the script runs", func() bool { return exists(mark + ".on") })
				if err := run.result(); !errors.Is(err, ErrHungUp) {
					t.Errorf("got %v, want ErrHungUp", err)
				}
			})
		}
	})
}

func TestLateEndsWithItsExchange(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for name, end := range map[string]func(*running, chan struct{}){
			"PHP dies":       func(_ *running, die chan struct{}) { close(die) },
			"an abort":       func(run *running, _ chan struct{}) { run.x.Abort(errStop) },
			"the conn's end": func(run *running, _ chan struct{}) { run.conn.Kill() },
		} {
			die, called := make(chan struct{}), make(chan struct{})
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				_, _ = p.head()
				<-die
			}))
			run := start(t, pool, web, func(x *Exchange) {
				x.ContentLength = 4
				x.Late = func(ctx context.Context) {
					close(called)
					<-ctx.Done()
				}
			}, requestOf(1, true, "body"))
			receive(t, "the call of Late", called)
			end(run, die)
			if err := run.result(); !errors.Is(err, ErrUpstream) && !errors.Is(err, ErrKilled) || !run.isEnded() {
				t.Errorf("%s: got %v and ended %t, want ErrUpstream or ErrKilled", name, err, run.isEnded())
			}
			if name != "PHP dies" {
				close(die)
			}
		}
	})
}

func TestBodyIsAwaited(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		body := strings.Repeat("body", 50_000)
		request := requestOf(1, true, body, "A", "precious")
		for name, c := range map[string]struct {
			request []byte
			limit   int
			whole   bool
		}{
			"all of it":           {request, len(request), true},
			"a short one":         {requestOf(1, true, "", "A", "precious"), 0, true},
			"without its end":     {request[:len(request)-headerLen], len(request), false},
			"more than the limit": {request, 50_000, false},
			"malformed":           {joined(request[:len(request)-headerLen], make([]byte, headerLen)), len(request), true},
		} {
			conn, web := newConn(t, network, Limits{})
			go func() { _, _ = web.Write(c.request) }()
			r, err := conn.Next()
			if err != nil {
				t.Fatal(err)
			}
			timeout := patience
			if !c.whole {
				timeout = 200 * time.Millisecond
			}
			n, whole := r.AwaitBody(c.limit, timeout)
			if whole != c.whole || c.limit == 50_000 && n <= c.limit {
				t.Errorf("%s: got %d bytes and whole %t", name, n, whole)
			}
			if got := r.Params.Get("A"); string(got) != "precious" {
				t.Errorf("%s: the params have become %q", name, got)
			}
			conn.Close()
		}
	})
}

// PHP-FPM responds at the moment at which the web server hangs up: the script becomes an orphan, in whatever order both
// are noticed.
func TestHangUpWhilePHPRespondsLeavesAnOrphan(t *testing.T) {
	for name, respondsFirst := range map[string]bool{"the response first": true, "the hang-up first": false} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			l := newLateCall(func(context.Context) { calls++ }, 10)
			if respondsFirst {
				l.settle()
				if got := l.onGone(); got != lateOver {
					t.Errorf("got state %v at the hang-up, want %v", got, lateOver)
				}
				return
			}
			if got := l.onGone(); got != lateAhead {
				t.Errorf("got state %v at the hang-up, want %v", got, lateAhead)
			}
			settled := make(chan struct{})
			go func() {
				l.settle()
				close(settled)
			}()
			l.run()
			receive(t, "the call is settled", settled)
			if !l.end() {
				t.Error("the hang-up is forgotten")
			}
			if got := l.begin(); got != lateOver || calls != 1 {
				t.Errorf("got state %v after %d calls, want %v after 1", got, calls, lateOver)
			}
		})
	}
}
