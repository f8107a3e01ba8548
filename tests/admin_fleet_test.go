package tests

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestAFleetTellsOnWhichHostALockIsHeld has two gates share their locks, as on two hosts, and asks the one that waits.
func TestAFleetTellsOnWhichHostALockIsHeld(t *testing.T) {
	t.Parallel()
	r := newRig(t, "nginx", "php-fpm", "memcached")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	store := rigtest.Start(t, r.Memcached, rig.StoreOptions{})
	var gates [2]*rig.Gate
	var sites [2]*rig.Site
	var admins [2]operator
	for i := range gates {
		var block string
		block, admins[i] = adminBlock(t)
		gates[i] = startGate(t, r, rig.GateOptions{Upstream: php.Addr, Settings: inMemcached,
			Config: block + memcachedBlock(store, "3s", "") + "log { slow_wait = \"50ms\" }\n"})
		sites[i] = &rig.Site{FastCGI: gates[i].Addr}
	}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: sites[:]})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	session := newSession()
	held := begin(sites[0], request{path: "/wait.php?mark=hold", session: session})
	awaitMark(t, r, "hold.started")
	waits := begin(sites[1], request{path: "/hello.php", session: session})
	eventually(t, "the other gate knows on which host it is held", func() bool {
		page := admins[1].locks(t)
		return len(page.Locks) == 1 && !page.Locks[0].Held && page.Locks[0].Holder.Host == host &&
			page.Locks[0].Holder.Gate == "www" && len(page.Locks[0].Waiters) == 1
	})
	key := admins[1].locks(t).Locks[0].Key
	if code, table, _ := admins[1].run(t, "locks"); code != 0 || !strings.Contains(table, " on "+host) {
		t.Errorf("got exit code %d and %s, want the host in it", code, table)
	}
	if code, _, stderr := admins[1].run(t, "break", key); code != 1 || !strings.Contains(stderr, "held on host "+host+"; break it there") {
		t.Errorf("break: got exit code %d and %q", code, stderr)
	}
	if code, _, stderr := admins[0].run(t, "break", key); code != 0 {
		t.Errorf("break on the host that holds it: got exit code %d and %q", code, stderr)
	}
	(<-waits).mustBe(t, "hello\n")
	letGo(t, r, "hold")
	(<-held).mustBe(t, "last\n")
	awaitLog(t, gates[1].Server, "slow wait")
	if line, want := lineWith(gates[1].Log(), "slow wait"), fmt.Sprintf("holder_host=%s holder_gate=www", host); !strings.Contains(line, want) {
		t.Errorf("got %q, want %q in it", line, want)
	}

	if err := store.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gates are not ready without their store", func() bool {
		status, text, err := admins[0].ask("GET", "/readyz", "")
		return err == nil && status == http.StatusServiceUnavailable && strings.Contains(text, "lock store: ")
	})
}
