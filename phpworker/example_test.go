package phpworker_test

import (
	"errors"
	"fmt"
	"net"

	"github.com/fpm-gate/fpm-gate/phpworker"
)

// What the script that serves a connection does with its session. It needs PHP-FPM, and the rights to look at its
// workers: the same user, or CAP_SYS_PTRACE.
func Example() {
	nc, err := net.Dial("unix", "/run/php/php-fpm.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	// … a request is sent on nc.
	raw, err := nc.(*net.UnixConn).SyscallConn()
	if err != nil {
		fmt.Println(err)
		return
	}
	var finder phpworker.Finder = new(phpworker.Local)
	if errors.Is(finder.Ready(), phpworker.ErrRights) {
		finder = new(phpworker.Helper) // fpm-gate helper has them
	}
	worker, err := finder.Find(raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	session, err := worker.Session()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(worker.PID(), session.Status, session.Handler)
}
