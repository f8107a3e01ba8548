package gate_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	ours "github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpfpm"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// A gate between a client and a FastCGI application, which stands for PHP-FPM here.
func Example() {
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	application, err := net.Listen("unix", filepath.Join(dir, "php.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer application.Close()
	go fcgi.Serve(application, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "pong")
	}))

	g := gate.New(gate.Options{
		Name:  "www",
		Realm: "www",
		Locks: sessionlock.NewManager(sessionlock.NewLocal()),
		Upstream: ours.PoolOptions{
			Addrs:          []netaddr.Addr{{Network: "unix", Address: application.Addr().String()}},
			ConnectTimeout: 10 * time.Second,
		},
		Session: phpsession.Rules{Cookies: []string{"PHPSESSID"}},
		Policy:  gate.Policy{MaxWait: 30 * time.Second, Expiry: 2 * time.Minute, Status: http.StatusServiceUnavailable},
	}, hclog.NewNullLogger())
	l, err := net.Listen("unix", filepath.Join(dir, "gate.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- g.Serve(l) }()

	at := netaddr.Addr{Network: "unix", Address: l.Addr().String()}
	fmt.Println(phpfpm.Ping(context.Background(), at, "/ping", 10*time.Second))
	fmt.Println(g.Shutdown(context.Background(), time.Second), <-served)
	// Output:
	// <nil>
	// <nil> <nil>
}
