package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestNoLogTellsASessionID has the gate log all that it can, in JSON, of
// requests that go all the ways there are. That no id is in the log is what
// checkLog looks for after each test.
func TestNoLogTellsASessionID(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		Gate: rig.GateOptions{
			Settings: `
  session { query = ["sid"] }
  lock {
    max_wait    = "1ms"
    max_waiters = 1
    expiry      = "10s"
  }
  route "observed" {
    path    = ["/hello.php"]
    observe = true
  }`,
			Config: "log {\n  level = \"trace\"\n  format = \"json\"\n  slow_wait = \"1ms\"\n}\n",
		},
		Site: rig.Site{Unbuffered: true},
	})
	session := newSession()
	held := s.hold(t, session, "hold")
	for range 3 {
		s.get("/hello.php?sid="+session, session).mustBe(t, "hello\n")
		if r := s.get("/count.php?sid="+session, ""); r.status != http.StatusServiceUnavailable {
			t.Errorf("got status %d and error %v, want 503", r.status, r.err)
		}
	}
	awaitLog(t, s.Gate.Server, "lock expired")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	s.get("/die.php?kb=10", session)
	ids := strings.Fields(s.get("/login.php", session).body)
	if len(ids) != 2 || strings.Contains(s.Gate.Log(), ids[1]) {
		t.Errorf("the log tells the new one of the ids %q", ids)
	}
	if err := s.PHP.Stop(); err != nil {
		t.Fatal(err)
	}
	s.get("/hello.php", session)
	for line := range strings.Lines(s.Gate.Log()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["@message"] == "" {
			t.Errorf("got line %q and error %v, want a message in JSON", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, fields["@timestamp"].(string)); err != nil {
			t.Error(err)
		}
	}
}

// abortInHead begins a request and aborts it, which the gate logs, and waits until the gate has closed the conn.
func abortInHead(t *testing.T, to rig.Addr) {
	t.Helper()
	nc, err := net.Dial(to.Network, to.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	records := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, false)
	if _, err := nc.Write(fcgi.AppendRecord(records, fcgi.TypeAbortRequest, 1, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, nc); err != nil {
		t.Fatal(err)
	}
}

// The program that reads the log may end, and may stop reading: requests are served all the same, and an operator can
// see it elsewhere. When another one reads, the log goes on and says how much is missing.
func TestTheGateOutlivesTheReaderOfItsLog(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %v", hangs), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "nginx", "php-fpm")
			s := &stack{Rig: r, PHP: rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})}
			listen, err := r.Reserve("unix", "gate")
			if err != nil {
				t.Fatal(err)
			}
			block, o := adminBlock(t)
			config := block + "log { level = \"trace\" }\n" +
				gateOf("www", listen, fmt.Sprintf("address = %q", s.PHP.Addr), `listen_mode = "0666"`)
			fifo := filepath.Join(t.TempDir(), "log")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			reader, writer := openFIFO(t, fifo)
			gate := exec.Command(gateBinary, "serve", "--config", configFile(t, config), "--drain-timeout", "1s")
			gate.Env, gate.Stderr = append(os.Environ(), raceOptions), writer
			if err := gate.Start(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			ended := make(chan error, 1)
			go func() { ended <- gate.Wait() }()
			eventually(t, "it listens", func() bool { return accepts(listen) && accepts(o.addr) })
			s.Site = &rig.Site{FastCGI: listen}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
			if !hangs {
				reader.Close()
			}
			eventually(t, "lines are lost, and no request is", func() bool {
				s.get("/hello.php", newSession()).mustBe(t, "hello\n")
				for range 500 {
					abortInHead(t, listen)
				}
				return t.Failed() || plainMetric(t, o, "fpm_gate_log_lines_lost_total") > 0
			})
			if status, text, err := o.ask("GET", "/readyz", ""); err != nil || status != http.StatusOK || !strings.Contains(text, "cannot write the log") {
				t.Errorf("/readyz: got %d, %q and %v, want 200 and a warning", status, text, err)
			}
			if !hangs {
				reader, err = os.OpenFile(fifo, os.O_RDONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
			}
			said := new(lockedBuffer)
			go io.Copy(said, reader)
			defer reader.Close()
			eventually(t, "the log says how many lines are lost", func() bool {
				s.get("/hello.php", newSession()).mustBe(t, "hello\n")
				return t.Failed() || regexp.MustCompile(`log lines lost; .*: lines_lost=[1-9]`).MatchString(said.String())
			})
			if err := gate.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("got %v, want that it ends well", err)
			}
		})
	}
}

// openFIFO opens both ends of a pipe that has a name, each for the process that will have it alone.
func openFIFO(t *testing.T, path string) (reader, writer *os.File) {
	t.Helper()
	both, err := os.OpenFile(path, os.O_RDWR, 0) // does not wait for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	if reader, err = os.OpenFile(path, os.O_RDONLY, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return reader, os.NewFile(uintptr(fd), path)
}

// plainMetric returns a metric without labels.
func plainMetric(t *testing.T, o operator, name string) (value float64) {
	t.Helper()
	for line := range strings.Lines(o.get(t, "/metrics")) {
		if n, _ := fmt.Sscanf(line, name+" %g", &value); n == 1 {
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestAReloadChangesTheFormatOfTheLog also holds each line to its format, whatever a visitor asks for.
func TestAReloadChangesTheFormatOfTheLog(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		Gate: rig.GateOptions{Config: "log {\n  level = \"debug\"\n  format = \"text\"\n}\n"},
		Site: rig.Site{Settings: "fastcgi_param SCRIPT_NAME $arg_name$fastcgi_script_name;"},
	})
	for n, format := range []string{"json", "text", "json"} {
		reload(t, s.Gate, regexp.MustCompile(`format = "\w+"`).ReplaceAllString(s.Gate.Config, fmt.Sprintf("format = %q", format)))
		before := len(s.Gate.Log())
		s.get("/hello.php%0a2026-11-26T00:00:00Z%20[ERROR]%20forged:%20x.php", newSession())
		s.get("/hello.php", newSession()).mustBe(t, "hello\n")
		eventually(t, "the requests are logged", func() bool { return strings.Count(s.Gate.Log()[before:], "request done") == 2 })
		for line := range strings.Lines(s.Gate.Log()[before:]) {
			if json.Valid([]byte(line)) != (format == "json") {
				t.Errorf("format %s, reload %d: got the line %q", format, n, line)
			}
			if format == "text" && !regexp.MustCompile(`^\S+ \[(DEBUG|INFO)\] +fpm-gate`).MatchString(line) {
				t.Errorf("got the line %q, which a visitor has made", line)
			}
		}
	}
}

// loggedOf returns how many lines of a log have a text, and how many more of them the log counts.
func loggedOf(log, text string) (lines, counted int) {
	pattern := regexp.MustCompile(regexp.QuoteMeta(text) + ` \(further ones.* requests=(\d+)`)
	for line := range strings.Lines(log) {
		more := pattern.FindStringSubmatch(line)
		var n int
		switch {
		case more != nil:
			fmt.Sscan(more[1], &n)
			counted += n
		case strings.Contains(line, text):
			lines++
		}
	}
	return lines, counted
}

// TestEachRejectionIsCountedInTheLog has a visitor reload and reload: the log names some of the requests, and counts all.
func TestEachRejectionIsCountedInTheLog(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  lock { max_wait = "1ms" }
  route "full" {
    path        = ["/empty.php"]
    max_wait    = "50s"
    max_waiters = 2
  }
  route "probe" {
    path        = ["/probe.php"]
    max_waiters = 1
  }`}})
	session := newSession()
	held := s.hold(t, session, "hold")
	waiting := s.begin("/empty.php", session)
	rejected := map[string]int{"rejected: max_wait exceeded": 0, "rejected: max_waiters reached": 0}
	eventually(t, "it waits", func() bool {
		if s.get("/probe.php", session).status == http.StatusTooManyRequests {
			rejected["rejected: max_waiters reached"]++
			return true
		}
		rejected["rejected: max_wait exceeded"]++
		return false
	})
	for range 60 { // within the time that wait.php waits, on a busy machine too
		switch s.get("/hello.php", session).status {
		case http.StatusServiceUnavailable:
			rejected["rejected: max_wait exceeded"]++
		}
		switch s.get("/probe.php", session).status {
		case http.StatusTooManyRequests:
			rejected["rejected: max_waiters reached"]++
		}
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	<-waiting
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.mustExit(t, 0)
	for text, want := range rejected {
		lines, counted := loggedOf(s.Gate.Log(), text)
		if lines+counted != want || lines > want/2 {
			t.Errorf("%s: got %d lines and %d counted, want %d in all, most of them counted", text, lines, counted, want)
		}
	}
}
