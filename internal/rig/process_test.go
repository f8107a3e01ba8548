package rig_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func TestAKilledRigTakesItsServersWithIt(t *testing.T) {
	rigtest.Need(t, "php-fpm", "nginx", "apache2", "memcached")
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), "RIG_TEST_AS=victim", "RIG_TEST_DIR="+t.TempDir())
	program.Stderr = os.Stderr
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	program.Process.Kill()
	program.Wait()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, field := range strings.Fields(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() && isRunning(pid) { // leave nothing behind, even if it is why the test failed
				syscall.Kill(-pid, syscall.SIGKILL) // where it leads its group
				syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool { return !isRunning(pid) })
	}
}

// victim starts servers, prints all their process ids in a line, and waits to be killed.
func victim() int {
	r, err := rig.New(os.Getenv("RIG_TEST_DIR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := startSome(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, s := range r.Servers() {
		for _, pid := range s.Pids() {
			fmt.Print(pid, " ")
		}
	}
	fmt.Println()
	select {}
}

func startSome(r *rig.Rig) error {
	php, err := r.PHPFPM(rig.PHPOptions{})
	if err != nil {
		return err
	}
	if _, err := r.Memcached(rig.StoreOptions{}); err != nil {
		return err
	}
	if _, err := r.Apache(&rig.Site{FastCGI: php.Addr}); err != nil {
		return err
	}
	_, err = r.Nginx(rig.NginxOptions{Sites: []*rig.Site{{FastCGI: php.Addr}}})
	return err
}
