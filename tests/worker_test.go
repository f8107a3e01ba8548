package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// kept are the ways in which PHP keeps its sessions: what each takes, PHP's name of the handler, and its settings.
var kept = map[string]struct {
	programs []string
	name     string // of the handler, as PHP has it
	start    func(*testing.T, *rig.Rig) map[string]string
}{
	"files": {nil, "files", func(*testing.T, *rig.Rig) map[string]string { return nil }},
	"memcached": {[]string{"memcached", "php-memcached"}, "memcached", func(t *testing.T, r *rig.Rig) map[string]string {
		return rig.MemcachedSessions(rigtest.Start(t, r.Memcached, rig.StoreOptions{}))
	}},
	"redis": {[]string{"redis-server", "php-redis"}, "redis", func(t *testing.T, r *rig.Rig) map[string]string {
		return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
	}},
	"redis with locks": {[]string{"redis-server", "php-redis"}, "redis", func(t *testing.T, r *rig.Rig) map[string]string {
		return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), true)
	}},
	"user": {nil, "user", func(*testing.T, *rig.Rig) map[string]string { return nil }},
}

// pool is a PHP-FPM whose connections a test makes by itself.
type pool struct {
	*rig.Rig
	PHP     *rig.PHPFPM
	handler string
}

func newPool(t *testing.T, handler string, o rig.PHPOptions) *pool {
	t.Helper()
	needPtrace(t)
	h := kept[handler]
	p := &pool{Rig: newRig(t, append(h.programs, "php-fpm")...), handler: handler}
	ini := h.start(t, p.Rig)
	if ini == nil {
		ini = make(map[string]string)
	}
	maps.Copy(ini, o.INI)
	o.INI = ini
	p.PHP = rigtest.Start(t, p.PHPFPM, o)
	return p
}

// needPtrace ends a test where the processes of others cannot be read, as rigtest.Lack does.
func needPtrace(t *testing.T) {
	t.Helper()
	rigtest.NeedRoot(t, "helpers are started as another user")
	if err := phpworker.Rights(); err != nil {
		rigtest.Lack(t, "PHP-FPM's workers cannot be looked at: ", err)
	}
}

// script is one run of a script, over a connection of its own.
type script struct {
	t    *testing.T
	pool *pool
	nc   net.Conn
	mark string
}

// run sends PHP-FPM a request for a script, with a mark of its own.
func (p *pool) run(t *testing.T, path, session string) *script {
	t.Helper()
	nc, err := net.Dial(p.PHP.Addr.Network, p.PHP.Addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	s := &script{t, p, nc, "mark" + newSession()}
	path += "&mark=" + s.mark
	if p.handler == "user" {
		path += "&handler=user"
	}
	if _, err := nc.Write(scriptRequest(p.Rig, path, session)); err != nil {
		t.Fatal(err)
	}
	return s
}

// scriptRequest is a request for a script as the gate would send it.
func scriptRequest(r *rig.Rig, path, session string) []byte {
	file, query, _ := strings.Cut(path, "?")
	var params []byte
	for _, p := range [][2]string{
		{"REQUEST_METHOD", "GET"}, {"SCRIPT_NAME", file}, {"SCRIPT_FILENAME", filepath.Join(r.DocRoot, file)},
		{"QUERY_STRING", query}, {"REQUEST_URI", path}, {"HTTP_COOKIE", "PHPSESSID=" + session},
	} {
		params = fcgi.AppendPair(params, p[0], p[1])
	}
	b := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, params)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, nil)
	return fcgi.AppendRecord(b, fcgi.TypeStdin, 1, nil)
}

// raw is the connection's descriptor.
func (s *script) raw() syscall.RawConn {
	s.t.Helper()
	raw, err := s.nc.(syscall.Conn).SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

// find finds the worker of the script, which must have been seen to run.
func (s *script) find(f phpworker.Finder) phpworker.Worker {
	s.t.Helper()
	w, err := f.Find(s.raw())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { w.Close() })
	return w
}

// await waits until steps.php has done n of its steps.
func (s *script) await(n int) {
	s.t.Helper()
	awaitMark(s.t, s.pool.Rig, fmt.Sprintf("%s.%d", s.mark, n))
}

// next lets steps.php do its next step, the one after n.
func (s *script) next(n int) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.pool.DocRoot, "marks", fmt.Sprintf("%s.%d.go", s.mark, n)), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// response waits for the end of the response, and returns what PHP wrote, errors included. The connection goes on.
func (s *script) response() string {
	s.t.Helper()
	_ = s.nc.SetReadDeadline(time.Now().Add(requestTimeout))
	text, err := readResponse(s.nc)
	if err != nil {
		s.t.Fatalf("read the response: %v after %q", err, text)
	}
	return text
}

// readResponse reads to the end of a response, and returns what PHP wrote.
func readResponse(r io.Reader) (string, error) {
	var all []byte
	for {
		var head [8]byte // version, type, id, length of content and of padding, reserved
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return string(all), err
		}
		length := int(binary.BigEndian.Uint16(head[4:]))
		record := make([]byte, length+int(head[6]))
		if _, err := io.ReadFull(r, record); err != nil {
			return string(all), err
		}
		if fcgi.RecordType(head[1]) == fcgi.TypeEndRequest {
			return string(all), nil
		}
		all = append(all, record[:length]...)
	}
}

// steps are ways of a script with its session, and what is to be seen after each step: PHP's status, and its id, where
// "own" is the one of the request's cookie and "new" another one.
var steps = map[string][]struct {
	step   string
	status phpworker.Status
	id     string
}{
	"opened and closed":            {{"start", phpworker.Active, "own"}, {"close", phpworker.None, "own"}},
	"opened and committed":         {{"start", phpworker.Active, "own"}, {"commit", phpworker.None, "own"}},
	"opened and aborted":           {{"start", phpworker.Active, "own"}, {"abort", phpworker.None, "own"}},
	"opened, reset and closed":     {{"start", phpworker.Active, "own"}, {"reset", phpworker.Active, "own"}, {"close", phpworker.None, "own"}},
	"read and closed":              {{"read", phpworker.None, "own"}},
	"opened and destroyed":         {{"start", phpworker.Active, "own"}, {"destroy", phpworker.None, ""}},
	"an id that is set":            {{"id", phpworker.None, "anotherid"}},
	"an id that is set and opened": {{"id", phpworker.None, "anotherid"}, {"start", phpworker.Active, "anotherid"}},
	"opened and renewed":           {{"start", phpworker.Active, "own"}, {"renew", phpworker.Active, "new"}, {"close", phpworker.None, "new"}},
	"opened again":                 {{"start", phpworker.Active, "own"}, {"close", phpworker.None, "own"}, {"start", phpworker.Active, "own"}},
	"open after its request":       {{"start", phpworker.Active, "own"}, {"finish", phpworker.Active, "own"}, {"close", phpworker.None, "own"}},
	"never opened":                 {{"nothing", phpworker.None, ""}},
}

// TestAWorkersSessionIsSeen: with each handler, in each way that a script can have with its session.
func TestAWorkersSessionIsSeen(t *testing.T) {
	t.Parallel()
	for handler, h := range kept {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, handler, rig.PHPOptions{Workers: len(steps)})
			for way, does := range steps {
				if strings.Contains(way, "reset") && (handler == "redis with locks" || handler == "memcached") {
					continue // both wait for the lock that they have themselves
				}
				t.Run(way, func(t *testing.T) {
					t.Parallel()
					var names []string
					for _, d := range does {
						names = append(names, d.step)
					}
					opened := false // a session, in this request
					session := newSession()
					s := p.run(t, "/steps.php?steps="+strings.Join(names, ","), session)
					s.await(0)
					w := s.find(&phpworker.Local{})
					mustSee(t, w, phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: h.name})
					for n, d := range does {
						s.next(n)
						s.await(n + 1)
						want := phpworker.Session{Status: d.status, ID: strings.Replace(d.id, "own", session, 1), Name: "PHPSESSID", Handler: h.name}
						mustSee(t, w, want)
						opened = d.id != "" && (opened || d.step == "read" || d.status == phpworker.Active)
						if got, err := w.Session(); err != nil || (got.Opened == phpworker.Before) != opened {
							t.Errorf("after %s: got opened %v, %v, want it seen: %v", d.step, got.Opened, err, opened)
						}
					}
					s.next(len(does))
					s.response()
					s.nc.Close()
					eventually(t, "the worker lets go of the connection", func() bool {
						_, err := w.Session()
						return errors.Is(err, phpworker.ErrGone)
					})
				})
			}
		})
	}
}

// mustSee fails the test unless the worker's session is that one. Where the session was started, only some versions of
// PHP say. The id "new" is any other.
func mustSee(t *testing.T, w phpworker.Worker, want phpworker.Session) {
	t.Helper()
	got, err := w.Session()
	if err != nil {
		t.Fatal(err)
	}
	if want.ID == "new" && got.ID != "" && !strings.HasPrefix(got.ID, sessionPrefix) {
		want.ID = got.ID
	}
	if got.StartedFile != "" && (filepath.Base(got.StartedFile) != "steps.php" || got.StartedLine < 27 || got.StartedLine > 33) {
		t.Errorf("started in %s:%d", got.StartedFile, got.StartedLine)
	}
	got.StartedFile, got.StartedLine, got.Opened = "", 0, 0
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestAnotherConnectionsSessionIsNotTakenForThisOnes: a worker that goes on to another request, of the same visitor even,
// is gone for the connection before, at the latest after a few looks.
func TestAnotherConnectionsSessionIsNotTakenForThisOnes(t *testing.T) {
	t.Parallel()
	for name, same := range map[string]bool{"the same session": true, "another session": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "files", rig.PHPOptions{Workers: 1})
			open := func(session string) *script {
				s := p.run(t, "/steps.php?steps=start", session)
				s.await(0)
				s.next(0)
				s.await(1)
				return s
			}
			session := newSession()
			first := open(session)
			w := first.find(&phpworker.Local{})
			for range 3 {
				if got, err := w.Session(); err != nil || got.Status != phpworker.Active || got.ID != session {
					t.Fatalf("got %+v, %v, want the session open", got, err)
				}
			}
			first.next(1)
			first.response()
			first.nc.Close()
			if !same {
				session = newSession()
			}
			second := open(session)
			for looks := 1; ; looks++ {
				got, err := w.Session()
				if errors.Is(err, phpworker.ErrGone) {
					break
				}
				if looks > 16 || !same {
					t.Fatalf("look %d: got %+v, %v, want %v", looks, got, err, phpworker.ErrGone)
				}
			}
			if err := w.Interrupt(session); !errors.Is(err, phpworker.ErrGone) {
				t.Errorf("interrupt: got %v, want %v", err, phpworker.ErrGone)
			}
			second.next(1)
			second.response()
		})
	}
}
