package main

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
)

// TestServeOnThisMachine serves real gates, an admin and a store whose server is not there, changes them by a reload,
// and ends.
func TestServeOnThisMachine(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	folder := t.TempDir()
	file := filepath.Join(folder, "fpm-gate.hcl")
	write := func(text string) *config.Config {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	gateBlock := func(name, more string) string {
		return "gate \"" + name + "\" {\n listen = \"unix:" + folder + "/" + name + "\"\n" +
			" upstream { address = \"unix:/no/such.sock\" }\n" + more + "\n}\n"
	}
	const top = "log { level = \"error\" }\nlandlock = false\n" // the rest of the tests is not confined
	first := write(top + gateBlock("a", "") + "admin {\n listen = \"unix:" + folder + "/admin\"\n pprof = true\n}\n")
	e := &environment{file: file, load: func() (*config.Config, error) { return config.Load(file) }, log: newLogs(first)}
	e.watching.log = e.log
	s := newSupervisor(e, time.Minute)
	if err := s.Start(first); err != nil {
		t.Fatal(err)
	}
	signals, ended := make(chan os.Signal), make(chan error)
	go func() { ended <- s.Run(signals) }()
	mustListen(t, folder, map[string]bool{"a": true, "b": false, "admin": true})
	if v := served(s.State()); len(v.Gates) != 1 || v.Gates[0].Gate != s.State().Gates[0].Gate.(*gate.Gate) ||
		len(v.Locks) != 1 || v.Locks[0].Manager != s.State().Local || !v.Profiles || v.Reloaded.IsZero() {
		t.Errorf("got %+v for operators, want a gate with locks in the process", v)
	}

	const shared = `lock { store = "memcached" }`
	write(top + gateBlock("a", shared) + gateBlock("b", shared) + "memcached { servers = [\"127.0.0.1:1\"] }\n")
	signals <- syscall.SIGHUP
	for len(s.State().Gates) < 2 || s.State().Config.Admin != nil { // the config is read in the background
		if s.State().ReloadFailed {
			t.Fatal("the reload has failed")
		}
	}
	for { // the admin is closed last
		nc, err := net.Dial("unix", filepath.Join(folder, "admin"))
		if err != nil {
			break
		}
		nc.Close()
	}
	mustListen(t, folder, map[string]bool{"a": true, "b": true, "admin": false})
	for _, g := range s.State().Gates {
		for !g.Gate.Listening() { // a gate that has not begun to serve closes its socket after the end
			time.Sleep(time.Millisecond)
		}
	}
	v := served(s.State())
	if len(v.Gates) != 2 || len(v.Locks) != 2 || v.Locks[1].Store == nil || v.Profiles {
		t.Errorf("got %+v for operators, want two gates that share a store", v)
	}

	signals <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Error(err)
	}
	mustListen(t, folder, map[string]bool{"a": false, "b": false})
}

// mustListen fails the test unless exactly the sockets that are to accept do.
func mustListen(t *testing.T, folder string, want map[string]bool) {
	t.Helper()
	for name, accepts := range want {
		nc, err := net.Dial("unix", filepath.Join(folder, name))
		if (err == nil) != accepts {
			t.Errorf("socket %s: got %v, want it to accept %v", name, err, accepts)
		}
		if nc != nil {
			nc.Close()
		}
	}
}

// TestNoStoreIsNil, and not a nil pointer in an interface: the supervisor compares it.
func TestNoStoreIsNil(t *testing.T) {
	e := new(environment)
	if s, err := e.OpenStore(parseConfig(t, ""), nil); s != nil || err != nil {
		t.Errorf("got %v, %v for a config without a store, want nil", s, err)
	}
	if s, err := e.OpenStore(parseConfig(t, "memcached {\n servers = [\"127.0.0.1:1\"]\n tls { ca = \"/no/such\" }\n}",
		`lock { store = "memcached" }`), nil); s != nil || err == nil {
		t.Errorf("got %v, %v for a store whose files are missing, want an error", s, err)
	}
}
