package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestNoGateListensWhereAnotherDoes wants what cannot be served, or leads a gate to itself, to be refused, however the
// addresses are written.
func TestNoGateListensWhereAnotherDoes(t *testing.T) {
	const both, itself = "listen must differ from all others", "The gate would connect to itself"
	for _, c := range []struct{ listen, other, twice, dialed string }{ // what is refused; "": nothing is
		{"127.0.0.1:9000", "127.0.0.1:9000", both, itself},
		{"127.0.0.1:9000", "127.0.0.1:9001", "", ""},
		{"127.0.0.1:9000", "127.0.0.2:9000", "", ""},
		{"127.0.0.1:9000", "localhost:9000", both, itself},
		{"localhost:9000", "127.0.0.1:9000", both, itself},
		{"[::ffff:127.0.0.1]:9000", "127.0.0.1:9000", both, itself},
		{"[::1]:9000", "[0:0::1]:9000", both, itself},
		{"[::1]:9000", "127.0.0.1:9000", "", ""},
		{"0.0.0.0:9000", "127.0.0.1:9000", both, itself},
		{"0.0.0.0:9000", "127.0.0.2:9000", both, itself},
		{"0.0.0.0:9000", "localhost:9000", both, itself},
		{"0.0.0.0:9000", "[::1]:9000", both, itself},
		{"0.0.0.0:9000", "127.0.0.1:9001", "", ""},
		{"[::]:9000", "127.0.0.1:9000", both, itself},
		{"[::]:9000", "0.0.0.0:9000", both, itself},
		{"127.0.0.1:9000", "0.0.0.0:9000", both, itself},
		{"0.0.0.0:9000", "10.0.0.5:9000", both, ""}, // an upstream on another host
		{"0.0.0.0:9000", "php:9000", both, ""},      // the container of that name
		{"10.0.0.5:9000", "127.0.0.1:9000", "", ""},
		{"10.0.0.5:9000", "0.0.0.0:9000", both, ""},
		{"php:9000", "php:9000", both, itself},
		{"php:9000", "shop:9000", "", ""},
		{"unix:/run/a.sock", "unix:/run//a.sock", both, itself},
		{"unix:/run/a.sock", "unix:/run/b.sock", "", ""},
		{"systemd:www", "unix:/run/www", "", ""},
	} {
		const gate = "gate %q {\n  listen = %q\n  upstream { address = %q }\n}\n"
		twice := fmt.Sprintf(gate+gate, "a", c.listen, "unix:/run/php", "b", c.other, "unix:/run/php")
		dialed := fmt.Sprintf(gate, "a", c.listen, c.other)
		for src, want := range map[string]string{twice: c.twice, dialed: c.dialed} {
			got := ""
			if _, err := Parse([]byte(src), "test.hcl"); err != nil {
				got = err.Error()
			}
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("got %q, want %q of\n%s", got, want, src)
			}
		}
	}
}
