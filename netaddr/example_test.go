package netaddr_test

import (
	"fmt"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

func ExampleAddr() {
	for _, a := range []netaddr.Addr{
		{Network: "unix", Address: "/run/php/php-fpm.sock"},
		{Network: "tcp", Address: "10.0.0.1:9000"},
	} {
		fmt.Println(a, a.IsLoopback())
	}
	// Output:
	// unix:/run/php/php-fpm.sock true
	// 10.0.0.1:9000 false
}
