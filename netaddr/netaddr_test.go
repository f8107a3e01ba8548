package netaddr

import "testing"

func TestAddr(t *testing.T) {
	for _, tt := range []struct {
		addr       Addr
		text       string
		host, port string
		loopback   bool
	}{
		{Addr{}, "", "", "", true},
		{Addr{"unix", "/run/a.sock"}, "unix:/run/a.sock", "", "", true},
		{Addr{"systemd", "www"}, "systemd:www", "", "", true},
		{Addr{"tcp", "127.0.0.1:9000"}, "127.0.0.1:9000", "127.0.0.1", "9000", true},
		{Addr{"tcp", "localhost:9000"}, "localhost:9000", "localhost", "9000", true},
		{Addr{"tcp", "[::1]:9000"}, "[::1]:9000", "::1", "9000", true},
		{Addr{"tcp", "php-1:9000"}, "php-1:9000", "php-1", "9000", false},
		{Addr{"tcp", "0.0.0.0:9000"}, "0.0.0.0:9000", "0.0.0.0", "9000", false},
		{Addr{"tcp", "[::]:9000"}, "[::]:9000", "::", "9000", false},
	} {
		if got := tt.addr.String(); got != tt.text {
			t.Errorf("%#v: got %q, want %q", tt.addr, got, tt.text)
		}
		if tt.addr.Network == "tcp" && (tt.addr.Host() != tt.host || tt.addr.Port() != tt.port) {
			t.Errorf("%v: got host %q and port %q, want %q and %q", tt.addr, tt.addr.Host(), tt.addr.Port(), tt.host, tt.port)
		}
		if got := tt.addr.IsLoopback(); got != tt.loopback {
			t.Errorf("%v: got loopback %t, want %t", tt.addr, got, tt.loopback)
		}
	}
}
