package supervisor

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
)

// drainTimeout is the drain timeout of all processes here.
const drainTimeout = 30 * time.Second

// process is a supervisor that runs in a world, in the bubble of a test.
type process struct {
	*Supervisor
	w       *world
	signals chan os.Signal
	result  chan error // of Run
}

// begin starts to serve a config.
func begin(w *world, text string, change ...func(*Options)) *process {
	w.t.Helper()
	p, err := tryToBegin(w, text, change...)
	if err != nil {
		w.t.Fatal(err)
	}
	p.run()
	return p
}

// tryToBegin starts, without running yet.
func tryToBegin(w *world, text string, change ...func(*Options)) (*process, error) {
	w.t.Helper()
	o := Options{Environment: w, Log: w.log(), DrainTimeout: drainTimeout}
	for _, f := range change {
		f(&o)
	}
	p := &process{Supervisor: New(o), w: w, signals: make(chan os.Signal, 4), result: make(chan error, 1)}
	return p, p.Start(parse(w.t, text))
}

// run runs until the test has ended it, or ends with it.
func (p *process) run() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.result <- p.Run(p.signals)
	}()
	p.w.t.Cleanup(func() {
		select {
		case p.signals <- syscall.SIGTERM:
		default:
		}
		<-ended
	})
	synctest.Wait()
}

// with has a process be one of a unit, or have a watchdog.
func with(u Unit, watchdog time.Duration) func(*Options) {
	return func(o *Options) { o.Unit, o.Watchdog = u, watchdog }
}

func (p *process) signal(sig os.Signal) {
	p.signals <- sig
	synctest.Wait()
}

// reload has the process read a config.
func (p *process) reload(text string) {
	p.w.mu.Lock()
	p.w.text = text
	p.w.mu.Unlock()
	p.signal(syscall.SIGHUP)
}

// mustReload fails the test unless the process serves a config then.
func (p *process) mustReload(text string) {
	p.w.t.Helper()
	p.reload(text)
	if p.State().ReloadFailed {
		p.w.t.Fatalf("the reload has failed:\n%s", p.w.lines.String())
	}
}

// hasEnded reports whether Run has returned, and its error.
func (p *process) hasEnded() (bool, error) {
	synctest.Wait()
	select {
	case err := <-p.result:
		p.result <- err
		return true, err
	default:
		return false, nil
	}
}

// gateOf returns the gate that is served by a name.
func (p *process) gateOf(name string) *fakeGate {
	p.w.t.Helper()
	for _, g := range p.State().Gates {
		if g.Name == name {
			return g.Gate.(*fakeGate)
		}
	}
	p.w.t.Fatalf("no gate %q is served", name)
	return nil
}

// servedGates lists the gates that are served, which of the gates that were made each is, and how often it was configured.
func (p *process) servedGates() string {
	var all []string
	for _, g := range p.State().Gates {
		of := g.Gate.(*fakeGate)
		accepts := ""
		if !of.Listening() {
			accepts = " deaf"
		}
		all = append(all, fmt.Sprintf("%s=%d/%d%s", g.Name, slices.Index(p.w.gates, of), len(of.setups), accepts))
	}
	return strings.Join(all, " ")
}

// mustBe compares texts.
func mustBe(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// block returns the block of a gate. Lines with a dot go into blocks: "lock.store" is store of the block lock.
func block(name, listen string, lines ...string) string {
	text := fmt.Sprintf("gate %q {\n listen = %q\n upstream { address = \"unix:/php.sock\" }\n", name, listen)
	return text + strings.Join(lines, "\n") + "\n}\n"
}

const (
	shared  = `lock { store = "memcached" }`
	watched = `session {
		handler = "files"
		save_path = "/sessions"
	}`
)

// stores returns the block of the store on a port.
func stores(port int, lines ...string) string {
	return fmt.Sprintf("memcached {\n servers = [\"127.0.0.1:%d\"]\n%s\n}\n", port, strings.Join(lines, "\n"))
}

// operatorsAt returns the block of an admin.
func operatorsAt(listen string, lines ...string) string {
	return fmt.Sprintf("admin {\n listen = %q\n%s\n}\n", listen, strings.Join(lines, "\n"))
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(text), "test.hcl")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return c
}
