package fcgi_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// This program relays what a web server sends on a unix socket to PHP-FPM, as the gate does, and adds a param.
func Example() {
	l, err := net.Listen("unix", "/run/relay.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	if l, err = fcgi.NewListener(l); err != nil {
		fmt.Println(err)
		return
	}
	pool := fcgi.NewPool(fcgi.PoolOptions{
		Addrs:          []netaddr.Addr{{Network: "unix", Address: "/run/php/php-fpm.sock"}},
		ConnectTimeout: 10 * time.Second,
	})
	for {
		nc, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		go relay(pool, nc)
	}
}

// relay serves one web server's conn until it ends.
func relay(pool *fcgi.Pool, nc net.Conn) {
	c, err := fcgi.NewConn(nc, fcgi.Limits{MaxParams: 64 << 10, HeadTimeout: 30 * time.Second})
	if err != nil {
		_ = nc.Close()
		return
	}
	defer c.Close()
	for {
		r, err := c.Next()
		if err != nil {
			return
		}
		x := fcgi.Exchange{Request: r, Params: fcgi.AppendPair(nil, "RELAYED", "1")}
		if err := pool.RoundTrip(context.Background(), &x); err != nil {
			fmt.Println(err)
		}
		if !r.Reusable() {
			return
		}
	}
}

// Params are read where they are, so their bytes are valid only as long as the records.
func ExampleParseParams() {
	pairs := fcgi.AppendPair(nil, "SCRIPT_FILENAME", "/srv/www/index.php")
	pairs = fcgi.AppendPair(pairs, "HTTP_COOKIE", "PHPSESSID=abc")
	params, err := fcgi.ParseParams(fcgi.AppendRecord(nil, fcgi.TypeParams, 1, pairs))
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, value := range params.All() {
		fmt.Printf("%s=%s\n", name, value)
	}
	// Output:
	// SCRIPT_FILENAME=/srv/www/index.php
	// HTTP_COOKIE=PHPSESSID=abc
}
