package rig_test

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestMain makes the test's own binary other programs too, for the tests that need one to end as they like.
func TestMain(m *testing.M) {
	switch os.Getenv("RIG_TEST_AS") {
	case "gate":
		os.Exit(standInGate(os.Args[1:]))
	case "victim":
		os.Exit(victim())
	}
	os.Exit(m.Run())
}

// standInGate has the command line of a gate and listens, but passes nothing on.
func standInGate(args []string) int {
	if len(args) < 3 || args[0] != "serve" || args[1] != "--config" {
		fmt.Fprintln(os.Stderr, "wrong usage:", args)
		return 2
	}
	config, err := os.ReadFile(args[2])
	if err != nil || strings.Contains(string(config), "wrong") {
		fmt.Fprintln(os.Stderr, "wrong config:", err)
		return 2
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	for _, m := range regexp.MustCompile(`unix:([^"]*listen[^"]*)`).FindAllSubmatch(config, -1) {
		ln, err := net.Listen("unix", string(m[1]))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer ln.Close()
	}
	for sig := range signals {
		if sig == syscall.SIGTERM {
			return 0
		}
		config, _ := os.ReadFile(args[2])
		fmt.Fprintf(os.Stderr, "reloaded %q\n", config)
	}
	return 1
}

func TestGateRunsWithItsConfig(t *testing.T) {
	r := rigtest.New(t)
	admin, err := r.Reserve("unix", "listen-admin")
	if err != nil {
		t.Fatal(err)
	}
	gate := rigtest.Start(t, r.Gate, standIn(rig.GateOptions{
		Name:     "listen",
		Upstream: rig.ParseAddr("127.0.0.1:9000"),
		Settings: `lock { max_wait = "1s" }`,
		Config:   fmt.Sprintf("# listen = \"unix:/never\"\nadmin { listen = %q }\n", admin),
	}))
	for _, a := range []rig.Addr{gate.Addr, admin} {
		if err := dial(a); err != nil {
			t.Errorf("the gate does not listen: %v", err)
		}
	}
	for _, want := range []string{`address = "127.0.0.1:9000"`, `lock { max_wait = "1s" }`, "admin {"} {
		if !strings.Contains(gate.Config, want) {
			t.Errorf("config: got %s, want %s in it", gate.Config, want)
		}
	}
	if err := gate.Reload("# new"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate has reloaded", func() bool { return strings.Contains(gate.Log(), `reloaded "# new"`) })
}

func TestAGateWithAWrongConfigSaysWhy(t *testing.T) {
	r := rigtest.New(t)
	gate, err := r.Gate(standIn(rig.GateOptions{Config: `gate "wrong" { listen = "unix:/never" }`}))
	if err == nil || !strings.Contains(err.Error(), "wrong config") {
		t.Errorf("got %v, want the gate's reason in it", err)
	}
	if got, want := gate.ExitCode(), 2; got != want {
		t.Errorf("exit code: got %d, want %d", got, want)
	}
}

func standIn(o rig.GateOptions) rig.GateOptions {
	o.Binary = os.Args[0]
	o.Env = []string{"RIG_TEST_AS=gate"}
	return o
}
