package fcgi

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// lateScripts print after fastcgi_finish_request(): whatever PHP-FPM sends of that belongs to no later request.
var lateScripts = map[string]string{
	"little, flushed":    `echo "LATE"; flush();`,
	"9 kB":               `echo str_repeat("LATE", 2250);`,
	"20 kB":              `echo str_repeat("LATE", 5000);`,
	"300 kB":             `echo str_repeat("LATE", 75000);`,
	"a header":           `header("X-Late: LATE"); echo "X-Late: LATE\r\n"; flush();`,
	"a whole response":   `echo "Set-Cookie: LATE=1\r\n\r\nLATE"; flush();`,
	"an error":           `error_log("LATE"); trigger_error("LATE"); flush();`,
	"at its very end":    `register_shutdown_function(function () { echo "LATE"; flush(); });`,
	"again and again":    `for ($i = 0; $i < 5; $i++) { echo "LATE"; flush(); usleep(300); }`,
	"nothing":            ``,
	"what it cannot end": `ob_start(); echo str_repeat("LATE", 5000);`,
}

func TestLateOutputReachesNoOtherRequest(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 6})
		var scripts []string
		for name, late := range lateScripts {
			file := strings.ReplaceAll(strings.ReplaceAll(name, " ", ""), ",", "") + ".php"
			f.script(file, `echo "early ", $_GET['n']; fastcgi_finish_request(); ignore_user_abort(true); usleep($_GET['us']); `+late)
			scripts = append(scripts, file)
		}
		f.script("page.php", `echo "page ", $_GET['n'];`)
		for name, edit := range map[string]func(*PoolOptions){
			"without max_connections": func(o *PoolOptions) { o.MaxConnections = 0 },
			"with max_connections":    func(o *PoolOptions) { o.MaxConnections = 4 },
			"one connection":          func(o *PoolOptions) { o.MaxConnections = 1 },
			"without reuse":           func(o *PoolOptions) { o.Reuse = 0 },
		} {
			pool := newPool(t, edit, f.addr)
			var visitors sync.WaitGroup
			for visitor := range 4 {
				visitors.Go(func() { visitLate(t, pool, f, name, visitor, scripts) })
			}
			visitors.Wait()
		}
	})
}

// visitLate asks for scripts that print late and for pages in turns, and checks each response whole.
func visitLate(t *testing.T, pool *Pool, f *fpm, name string, visitor int, scripts []string) {
	var run *running
	r := rand.New(rand.NewPCG(1, uint64(visitor)))
	for i := range 60 {
		n := fmt.Sprintf("%d-%d", visitor, i)
		want, request := "page "+n, f.get(1, true, "page.php", "n="+n)
		if i%2 == 0 {
			script := scripts[r.IntN(len(scripts))]
			want, request = "early "+n, f.get(1, true, script, fmt.Sprintf("n=%s&us=%d", n, r.IntN(3)*r.IntN(2000)))
		}
		if run == nil {
			run = start(t, pool, "unix", nil, request)
		} else {
			run.again(pool, nil, request)
		}
		got := run.web.response(1)
		if got.body() != want || strings.Contains(got.stdout+got.stderr, "LATE") {
			t.Errorf("%s: got %.300q and stderr %.100q, want %q", name, got.stdout, got.stderr, want)
		}
		if err := run.result(); err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		time.Sleep(time.Duration(r.IntN(2)*r.IntN(3000)) * time.Microsecond)
	}
}

// A PHP-FPM that sends records of other requests whenever it likes never has them passed on.
func TestNoRecordOfOneRequestReachesAnother(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for seed := range uint64(40) {
			rambling := startPHP(t, network, func(p *phpConn) { ramble(p, rand.New(rand.NewPCG(seed, uint64(p.n)))) })
			pool := newPool(t, func(o *PoolOptions) { o.MaxConnections = int(seed % 3) }, rambling)
			for range 25 {
				run := start(t, pool, "unix", nil, requestOf(7, false, "body"))
				got, err := readResponse(run.web, 7)
				failed := run.result()
				run.web.Close()
				if strings.Contains(got.stdout+got.stderr, "LATE") {
					t.Fatalf("seed %d: got %q and %q", seed, got.stdout, got.stderr)
				}
				if failed == nil && (err != nil || got.stdout != "\r\nown") {
					t.Errorf("seed %d: got %q and %v, want its own response", seed, got.stdout, err)
				}
				if failed != nil && !errors.Is(failed, ErrUpstream) && !errors.Is(failed, ErrTruncated) {
					t.Errorf("seed %d: %v", seed, failed)
				}
			}
		}
	})
}

// ramble answers requests, and sends records of earlier requests, or of none, in between. None has the id of a request
// that is still to come, as PHP-FPM cannot know one.
func ramble(p *phpConn, r *rand.Rand) {
	chat := func(id uint16) {
		for range r.IntN(3) {
			other := uint16(r.IntN(int(id) + 2))
			if other >= id {
				other += 1000 // which no connection comes to
			}
			types := []RecordType{TypeStdout, TypeStdout, TypeStdout, TypeStderr, TypeEndRequest, TypeGetValuesResult, 77}
			record := padded(types[r.IntN(len(types))], other, "LATELATE", r.IntN(9))
			if r.IntN(8) == 0 {
				record = record[:r.IntN(len(record))]
			}
			_, _ = p.Write(record)
			time.Sleep(time.Duration(r.IntN(2)*r.IntN(300)) * time.Microsecond)
		}
	}
	for {
		req, err := p.request()
		if err != nil {
			return
		}
		chat(req.id)
		_, _ = p.Write(AppendRecord(nil, TypeStdout, req.id, []byte("\r\nown")))
		chat(req.id)
		_, _ = p.Write(AppendEndRequest(nil, req.id, 0, StatusRequestComplete))
		chat(req.id)
	}
}
