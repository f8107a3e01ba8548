package phpfpm_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpfpm"
)

// A PHP-FPM with pm.status_path = /status.
func ExampleQueryStatus() {
	at := netaddr.Addr{Network: "unix", Address: "/run/php/php-fpm.sock"}
	status, err := phpfpm.QueryStatus(context.Background(), at, "/status", 2*time.Second)
	if errors.Is(err, phpfpm.ErrNoAnswer) {
		fmt.Println("all workers may be busy")
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %d of %d workers are active\n", status.Pool, status.ActiveProcesses, status.TotalProcesses)
}
