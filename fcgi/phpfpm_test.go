package fcgi

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// The tests of this file hold what the gate relies on: how a real PHP-FPM behaves.

// fpm is a real PHP-FPM.
type fpm struct {
	*rig.PHPFPM
	t    *testing.T
	root string // of its scripts
	addr netaddr.Addr
}

func startFPM(t *testing.T, network string, o rig.PHPOptions) *fpm {
	t.Helper()
	r := rigtest.New(t, "php-fpm")
	o.Listen = rig.Addr{Network: network}
	p := rigtest.Start(t, r.PHPFPM, o)
	return &fpm{p, t, r.DocRoot, p.Addr}
}

// script writes a script of the test's own.
func (f *fpm) script(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.root, name), []byte("<?php\n"+text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fpm) dial() *peer {
	f.t.Helper()
	nc, err := net.Dial(f.addr.Network, f.addr.Address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { nc.Close() })
	return newPeer(f.t, nc)
}

// params are what PHP needs to run a script, and more.
func (f *fpm) params(script, query string, more ...string) []string {
	return append([]string{
		"SCRIPT_FILENAME", filepath.Join(f.root, script), "SCRIPT_NAME", "/" + script, "REQUEST_URI", "/" + script,
		"REQUEST_METHOD", "GET", "QUERY_STRING", query, "SERVER_PROTOCOL", "HTTP/1.1",
	}, more...)
}

func (f *fpm) get(id uint16, keep bool, script, query string, more ...string) []byte {
	return requestOf(id, keep, "", f.params(script, query, more...)...)
}

// body is the part of a response behind its header.
func (r response) body() string {
	_, body, _ := strings.Cut(r.stdout, "\r\n\r\n")
	return body
}

func TestPHPReadsEachParamsRecordByItself(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("a.php", `echo $_SERVER['A'] ?? 'no A';`)
	pairs := pairsOf(f.params("a.php", "", "A", "whole")...)
	end := joined(AppendRecord(nil, TypeParams, 1, nil), stdinOf(1, ""))
	between := len(pairs) - len(pairsOf("A", "whole"))
	for cut, whole := range map[int]bool{between: true, between - 3: false, between + 3: false, len(pairs) - 1: false} {
		p := f.dial()
		p.send(AppendBeginRequest(nil, 1, RoleResponder, false),
			AppendRecord(nil, TypeParams, 1, pairs[:cut]), AppendRecord(nil, TypeParams, 1, pairs[cut:]), end)
		got, err := readResponse(p, 1)
		if whole && (err != nil || got.body() != "whole") {
			t.Errorf("cut between two pairs: got %+v and %v", got, err)
		}
		if !whole && (err == nil || got.stdout != "") {
			t.Errorf("a pair cut at %d: got %+v and %v, want the connection to be dropped", cut, got, err)
		}
	}
}

func TestPHPTakesTheLastOfANameUpToItsFirstNUL(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("a.php", `echo json_encode([$_SERVER['A'], $_SERVER['N'], $_SERVER['E']]);`)
	p := f.dial()
	p.send(f.get(1, false, "a.php", "", "A", "first", "N", "before\x00behind", "E", "x", "A", "last", "E", ""))
	if got := p.response(1); got.body() != `["last","before",""]` {
		t.Errorf("got %q", got.body())
	}
}

func TestPHPRefusesContentAndPaddingOverSixtyFourKiB(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("a.php", `echo strlen($_SERVER['L']);`)
	for padding, served := range map[int]bool{0: true, 1: false, 255: false} {
		pairs := pairsOf(f.params("a.php", "")...)
		long := maxContent - len(pairs) - 1 - 4 - 1
		pairs = append(pairs, pairsOf("L", strings.Repeat("l", long))...)
		p := f.dial()
		_, unsent := p.Write(joined(AppendBeginRequest(nil, 1, RoleResponder, false),
			padded(TypeParams, 1, string(pairs), padding), AppendRecord(nil, TypeParams, 1, nil), stdinOf(1, "")))
		got, err := readResponse(p, 1)
		err = errors.Join(unsent, err) // it may close before all is sent
		if served != (err == nil) || served && got.body() != strconv.Itoa(long) {
			t.Errorf("65535 bytes of content and %d of padding: got %q and %v", padding, got.body(), err)
		}
	}
}

func TestPHPIgnoresAbortRequest(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	p := f.dial()
	p.send(f.get(1, false, "stream.php", "ms=50&n=3"))
	p.record()
	p.send(AppendRecord(nil, TypeAbortRequest, 1, nil))
	if got := p.response(1); !strings.Contains(got.stdout, "part 3") {
		t.Errorf("got %q, want the whole response", got.stdout)
	}
}

func TestPHPWorkerIsPinnedByAnOpenConnection(t *testing.T) {
	f := startFPM(t, "tcp", rig.PHPOptions{Workers: 1}) // of unix sockets PHP-FPM does not know how many queue
	first, second := f.dial(), f.dial()
	first.send(f.get(1, true, "hello.php", ""))
	first.response(1)
	second.send(f.get(1, true, "hello.php", ""))
	await(t, "the second connection queues", func() bool {
		s, err := f.Status(t.Context())
		return err == nil && s.Queue == 1
	})
	first.send(f.get(1, true, "hello.php", "")) // it is served at once, again and again
	first.response(1)
	first.Close()
	second.response(1)
}

func TestPHPAnswersManagementRecordsBetweenRequests(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	p := f.dial()
	for range 2 {
		p.send(f.get(1, true, "hello.php", ""))
		p.response(1)
		p.send(AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", "")))
		if h, _ := p.record(); h.Type != TypeGetValuesResult {
			t.Fatalf("got a record of type %d, want the values", h.Type)
		}
	}
}

// After the last byte of a script PHP-FPM shuts its side down, and reads what still comes until we close.
func TestPHPReadsOnUntilWeClose(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	p := f.dial()
	p.send(f.get(1, false, "hello.php", ""))
	p.response(1)
	p.atEnd()
	if _, err := p.Write(make([]byte, 10)); err != nil {
		t.Errorf("write behind the end: %v", err)
	}
	await(t, "it is read", func() bool { return notRead(t, p) == 0 })
}

// notRead is how many bytes that were sent on a unix socket have not been read.
func notRead(t testing.TB, p *peer) int {
	t.Helper()
	n, err := (&upstream{nc: p.Conn.(netpoll.Conn)}).unread()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fastcgi_finish_request ends the request, while its script, and its session, go on. On a connection that is not kept
// it waits for us to close; on a kept one nothing tells that the worker is still busy, but for the end of stdin, which
// it has not read.
func TestPHPScriptGoesOnAfterItHasFinishedItsRequest(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("finished.php", `echo "x"; fastcgi_finish_request(); touch($_GET['f'] . '.on'); `+untilTold+` touch($_GET['f']);`)
	for name, keep := range map[string]bool{"once": false, "kept": true} {
		mark := filepath.Join(t.TempDir(), "mark")
		p := f.dial()
		p.send(f.get(1, keep, "finished.php", "f="+mark))
		p.response(1)
		if !keep {
			p.atEnd()
			if sooner(nil, 30*time.Millisecond) || exists(mark+".on") {
				t.Errorf("%s: the script goes on while the connection is open", name)
			}
			p.Close()
		}
		await(t, "the script goes on", func() bool { return exists(mark + ".on") })
		if keep && notRead(t, p) == 0 {
			t.Errorf("%s: all is read while the script runs", name)
		}
		touch(t, mark+".end")
		await(t, "the script has ended", func() bool { return exists(mark) })
		if keep {
			await(t, "all is read", func() bool { return notRead(t, p) == 0 })
		}
		p.Close()
	}
}

// untilTold is PHP: it waits for a file.
const untilTold = `while (!file_exists($_GET['f'] . '.end')) { usleep(1000); clearstatcache(); }`

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func touch(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The trick by which the gate learns when a script has ended whose web server has gone.
func TestPHPLeavesAByteUnreadUntilAScriptThatWasCutOffHasEnded(t *testing.T) {
	dir := t.TempDir()
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("silent.php", `touch($_GET['f'] . '.begun'); `+untilTold+` echo "x";`)
	f.script("post.php", `file_get_contents('php://input'); touch($_GET['f'] . '.begun'); `+untilTold)
	for name, request := range map[string]func(mark string) []byte{
		"a get":                func(mark string) []byte { return f.get(1, false, "silent.php", "f="+mark) },
		"a get on a kept one":  func(mark string) []byte { return f.get(1, true, "silent.php", "f="+mark) },
		"a post":               func(mark string) []byte { return f.post(mark, false) },
		"a post on a kept one": func(mark string) []byte { return f.post(mark, true) },
	} {
		mark := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		p := f.dial()
		p.send(request(mark))
		await(t, "the script runs", func() bool { return exists(mark + ".begun") })
		if err := p.Conn.(netpoll.Conn).CloseRead(); err != nil {
			t.Fatal(err)
		}
		p.send([]byte{0})
		for range 20 {
			if notRead(t, p) == 0 {
				t.Fatalf("%s: all is read while the script runs", name)
			}
			time.Sleep(time.Millisecond)
		}
		touch(t, mark+".end")
		await(t, name+": all is read after the script's end", func() bool { return notRead(t, p) == 0 })
		p.Close()
	}
}

func (f *fpm) post(mark string, keep bool) []byte {
	params := f.params("post.php", "f="+mark, "CONTENT_LENGTH", "1000", "CONTENT_TYPE", "text/plain", "REQUEST_METHOD", "POST")
	return requestOf(1, keep, strings.Repeat("x", 1000), params...)
}

func TestPHPScriptThatWritesStopsWhenItIsCutOff(t *testing.T) {
	dir := t.TempDir()
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("writes.php", `while (ob_get_level() > 0) { ob_end_flush(); }
register_shutdown_function(function () { file_put_contents($_GET['f'], connection_status()); });
for ($i = 0; $i < 100000; $i++) { echo "x"; flush(); usleep(1000); }`)
	for name, keep := range map[string]bool{"once": false, "kept": true} {
		mark := filepath.Join(dir, name)
		p := f.dial()
		p.send(f.get(1, keep, "writes.php", "f="+mark))
		p.record()
		if err := p.Conn.(netpoll.Conn).CloseRead(); err != nil {
			t.Fatal(err)
		}
		p.send([]byte{0})
		await(t, name+": all is read after the script's end", func() bool { return notRead(t, p) == 0 })
		status, err := os.ReadFile(mark)
		if err != nil || string(status) != "1" {
			t.Errorf("%s: the script ended with %q and %v, want it to be told that its browser has gone", name, status, err)
		}
	}
}

// Whether a request on a pooled connection may be sent again hangs on this difference.
func TestPHPWorkerThatDiesAtWorkShowsAsAReset(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 2})
		f.script("read.php", `while (!feof($in ??= fopen('php://input', 'rb'))) { fread($in, 1000); } posix_kill(getmypid(), 9); sleep(10);`)
		post := f.params("read.php", "", "CONTENT_LENGTH", "4", "CONTENT_TYPE", "text/plain", "REQUEST_METHOD", "POST")
		for name, request := range map[string][]byte{
			"a get":                          f.get(1, true, "die.php", "kb=0"),
			"a post that has read its body":  requestOf(1, true, "body", post...),
			"a post without a known length":  requestOf(1, true, "body", f.params("read.php", "", "REQUEST_METHOD", "POST")...),
			"a get with a body of its own":   requestOf(1, true, "body", f.params("die.php", "kb=0")...),
			"a post with a body too long":    requestOf(1, true, "body and more", post...),
			"a post of a form, parsed ahead": requestOf(1, true, "a=bc", f.params("read.php", "", "CONTENT_LENGTH", "4", "CONTENT_TYPE", "application/x-www-form-urlencoded", "REQUEST_METHOD", "POST")...),
		} {
			p := f.dial()
			p.send(f.get(1, true, "hello.php", ""))
			p.response(1)
			p.send(request)
			if got, err := readResponse(p, 1); !errors.Is(err, syscall.ECONNRESET) || got.stdout != "" {
				t.Errorf("%s: got %+v and %v, want a reset", name, got, err)
			}
		}
	})
}

func TestPHPWorkerThatServesNoMoreShowsAsACleanEnd(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 2, MaxRequests: 2})
		f.script("count.php", `file_put_contents($_GET['f'], 'x', FILE_APPEND); echo 'done';`)
		runs := filepath.Join(t.TempDir(), "runs")
		served := 0
		for range 40 {
			p := f.dial()
			for range 3 { // the last of them meets a worker that has had enough, before or after it is sent
				if _, err := p.Write(f.get(1, true, "count.php", "f="+runs)); err != nil {
					if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("send: %v", err)
					}
					break
				}
				got, err := readResponse(p, 1)
				if err != nil {
					if !errors.Is(err, io.EOF) || got.stdout != "" {
						t.Errorf("got %+v and %v, want a clean end", got, err)
					}
					break
				}
				served++
			}
			p.Close()
		}
		ran, err := os.ReadFile(runs)
		if err != nil || len(ran) != served {
			t.Errorf("%d scripts ran and %d were answered (%v): one ran whose request looked as if it had not been read", len(ran), served, err)
		}
	})
}

func TestPHPRunsAScriptWhoseBodyIsCutShort(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{})
		f.script("length.php", `echo strlen(file_get_contents('php://input'));`)
		request := requestOf(1, false, strings.Repeat("x", 1000), f.params("length.php", "", "CONTENT_LENGTH", "1000", "CONTENT_TYPE", "text/plain", "REQUEST_METHOD", "POST")...)
		p := f.dial()
		p.send(request[:len(request)-headerLen-500])
		if err := p.Conn.(netpoll.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := p.response(1); got.body() != "500" {
			t.Errorf("got %q, want 500", got.body())
		}
	})
}

func TestPHPServesAuthorizersAndFilters(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	f.script("role.php", `echo $_SERVER['FCGI_ROLE'];`)
	for role, want := range map[Role]string{RoleResponder: "RESPONDER", RoleAuthorizer: "AUTHORIZER", RoleFilter: "FILTER"} {
		p := f.dial()
		for range 2 {
			p.send(AppendBeginRequest(nil, 1, role, true), paramsOf(1, f.params("role.php", "")...))
			if role != RoleAuthorizer {
				p.send(stdinOf(1, ""))
			}
			if got := p.response(1); got.body() != want {
				t.Errorf("role %d: got %q, want %q", role, got.body(), want)
			}
		}
	}
}
