package tests

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// All workers are busy with requests of the gate: nothing is broken, so no monitor may take the host out of service.
func TestAPHPFPMThatIsBusyIsNotDown(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		block, o := adminBlock(t)
		s := newStack(t, stackOptions{
			PHP:  rig.PHPOptions{Workers: 2, Listen: network},
			Gate: rig.GateOptions{Config: block},
		})
		reload(t, s.Gate, withUpstream(s.Gate.Config, fmt.Sprintf("ping_path = %q\nprobe_interval = \"200ms\"", rig.PingPath)))
		first, second := s.begin("/wait.php?mark=a", ""), s.begin("/wait.php?mark=b", "")
		awaitMark(t, s.Rig, "a.started")
		awaitMark(t, s.Rig, "b.started")
		awaitLog(t, s.Gate.Server, "upstream busy; its ping waits for a worker")
		status, text, err := o.ask("GET", "/readyz", "")
		if err != nil || status != http.StatusOK || !strings.Contains(text, "all workers busy") {
			t.Errorf("/readyz: got %d, %q and error %v, want 200 and a warning", status, text, err)
		}
		metrics := o.get(t, "/metrics")
		for _, want := range []string{"fpm_gate_upstream_up{", "fpm_gate_upstream_busy{"} {
			if !lineHas(metrics, want, "} 1") {
				t.Errorf("the metrics do not have %s…} 1", want)
			}
		}
		letGo(t, s.Rig, "a")
		letGo(t, s.Rig, "b")
		(<-first).mustBe(t, "last\n")
		(<-second).mustBe(t, "last\n")
		awaitLog(t, s.Gate.Server, "upstream answers its ping again")
		if strings.Contains(s.Gate.Log(), "[ERROR]") {
			t.Errorf("got an error in the log:\n%s", s.Gate.Log())
		}
	})
}

// lineHas reports whether a line begins and ends so.
func lineHas(text, begin, end string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begin) && strings.HasSuffix(line, end) {
			return true
		}
	}
	return false
}

// Probes of PHP-FPMs that accept and say nothing keep no reload and no stop waiting, however long they may take.
func TestProbesKeepNoReloadAndNoStopWaiting(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		r := newRig(t)
		address := "127.0.0.1:0"
		if network == rig.Unix {
			address = filepath.Join(t.TempDir(), "silent")
		}
		silent, err := net.Listen(network.Network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		upstream := fmt.Sprintf("address = %q\nping_path = \"/ping\"\nstatus_path = \"/status\"\nprobe_interval = \"10m\"",
			rig.Addr{Network: network.Network, Address: silent.Addr().String()})
		var config string
		for _, name := range []string{"a", "b", "c"} {
			listen, err := r.Reserve("unix", "gate"+name)
			if err != nil {
				t.Fatal(err)
			}
			config += gateOf(name, listen, upstream, "")
		}
		g := startGate(t, r, rig.GateOptions{Config: config, Args: []string{"--drain-timeout", "1s"}})
		for range 3 {
			nc, err := silent.Accept() // a probe is under way
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
		}
		reload(t, g, strings.ReplaceAll(config, "10m", "11m"))
		if err := g.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		awaitLog(t, g.Server, "all requests are done")
		<-g.Exited()
		if got := g.ExitCode(); got != 0 {
			t.Errorf("exit code: got %d, want 0", got)
		}
	})
}

// TestTheBacklogIsShownWherePHPFPMKnowsIt fills the backlog of a real PHP-FPM, which knows it over TCP only.
func TestTheBacklogIsShownWherePHPFPMKnowsIt(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s, o := newPausable(t, rig.PHPOptions{Listen: network, Workers: 2},
			fmt.Sprintf("status_path = %q\nprobe_interval = \"100ms\"", rig.StatusPath), "")
		answers := []<-chan response{s.hold(t, "", "a"), s.hold(t, "", "b")}
		for range 3 {
			answers = append(answers, s.begin("/wait.php?mark=a", ""))
		}
		eventually(t, "three requests are in the backlog", func() bool {
			return strings.Contains(o.get(t, "/metrics"), `fpm_gate_active_processes{gate="www"} 5`)
		})
		if network == rig.TCP {
			eventually(t, "PHP-FPM has counted its backlog", func() bool { return s.status(t).MaxQueue >= 3 })
		} else {
			time.Sleep(2500 * time.Millisecond) // PHP-FPM counts once a second
			if got := s.status(t); got.Queue != 0 || got.MaxQueue != 0 {
				t.Errorf("got %+v: PHP-FPM knows the backlog of a unix socket, and docs/METRICS.md says otherwise", got)
			}
		}
		letGo(t, s.Rig, "a")
		letGo(t, s.Rig, "b")
		for _, answer := range answers {
			(<-answer).mustBe(t, "last\n")
		}
		const backlog = "\nfpm_gate_phpfpm_listen_queue"
		shown := regexp.MustCompile(backlog + `_max\{[^}]*\} (?:[3-9]|[1-9]\d+)\n`) // probes that were given up are there, too
		var text string
		eventually(t, "the gate has PHP-FPM's figures", func() bool {
			text = o.get(t, "/metrics")
			return strings.Contains(text, "\nfpm_gate_phpfpm_accepted_connections_total{") && (network == rig.Unix || shown.MatchString(text))
		})
		if strings.Contains(text, backlog+"{") != (network == rig.TCP) {
			t.Errorf("over %s: got %s", network.Network, text)
		}
	})
}

func (s *stack) status(t *testing.T) rig.Status {
	t.Helper()
	st, err := s.PHP.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}
