package tests

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// A request that has its lock may still wait: for a connection to PHP-FPM, or for its own body. These tests hold the
// gate to what the lock is worth then.

// bottleneck is two gates that share the locks of a realm and have one connection to PHP-FPM each. A request is delayed
// on the first; the second is free for the next one of its session.
type bottleneck struct {
	*rig.Rig
	delay
	realm   string
	network rig.Addr
	sites   [2]*rig.Site
	gates   [2]*rig.Gate // one process twice, where the locks are in it
	admins  [2]operator
	store   *rig.Server // of the locks; nil: the process

	session string
	first   <-chan response // of the request that is delayed
	letOn   func()          // ends its delay
}

// delay is what keeps a request that has its lock from PHP-FPM.
type delay struct {
	name       string
	connection bool // another request has the gate's connection
	body       bool // half of its body has not come
	method     string
}

var delays = []delay{
	{"waits for a connection", true, false, "GET"},
	{"slow body", false, true, "POST"},
	{"slow body that a running script reads", false, true, "PUT"},
	{"waits for a connection, slow body", true, true, "POST"},
	{"waits for a connection, slow body that a running script reads", true, true, "PUT"},
}

// lockExpiry is longer than turn.php takes on a machine with much else to do.
const lockExpiry = 4 * time.Second

// newBottlenecks makes one for each delay and transport, all of them in the same processes. PHP locks no session.
func newBottlenecks(t *testing.T, store string, delays []delay) (all []*bottleneck) {
	t.Helper()
	r := newRig(t, "nginx", "php-fpm", "memcached", "redis-server", "php-redis")
	copyScript(t, r, "turn.php", "next.php")
	ini := rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
	var configs [2]string
	var sites []*rig.Site
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: network, Workers: 2 * len(delays), INI: ini})
		for _, d := range delays {
			b := &bottleneck{Rig: r, delay: d, network: network, session: newSession()}
			b.realm = fmt.Sprintf("%s%d", network.Network, len(all))
			for i := range b.sites {
				listen, err := r.Reserve(network.Network, "gate")
				if err != nil {
					t.Fatal(err)
				}
				b.sites[i] = &rig.Site{FastCGI: listen, Unbuffered: true}
				configs[i] += b.gate(i, php.Addr, store)
			}
			sites = append(sites, b.sites[:]...)
			all = append(all, b)
		}
	}
	for _, b := range all {
		if b != all[0] {
			b.gates, b.admins, b.store = all[0].gates, all[0].admins, all[0].store
		} else {
			b.startProcesses(t, store, configs)
		}
	}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: sites})
	return all
}

// gate is the config of one of its gates.
func (b *bottleneck) gate(i int, php rig.Addr, store string) string {
	upstream := fmt.Sprintf("address = %q\nmax_connections = 1\nqueue_timeout = \"55s\"", php)
	return gateOf(fmt.Sprintf("%s-%d", b.realm, i), b.sites[i].FastCGI, upstream, fmt.Sprintf(`realm = %q
  lock {
    store            = %q
    expiry           = %q
    max_wait         = "55s"
    on_store_failure = "reject"
  }
  route "next" {
    path   = ["/next.php", "/wait.php"]
    expiry = "10m"
  }`, b.realm, store, lockExpiry))
}

// startProcesses starts the gates: in two processes with their locks in memcached, or in one.
func (b *bottleneck) startProcesses(t *testing.T, store string, configs [2]string) {
	t.Helper()
	if store == "local" {
		block, admin := adminBlock(t)
		gate := startGate(t, b.Rig, rig.GateOptions{Config: configs[0] + configs[1] + block})
		b.gates, b.admins = [2]*rig.Gate{gate, gate}, [2]operator{admin, admin}
		return
	}
	b.store = rigtest.Start(t, b.Memcached, rig.StoreOptions{})
	for i, config := range configs {
		var block string
		block, b.admins[i] = adminBlock(t)
		b.gates[i] = startGate(t, b.Rig, rig.GateOptions{Config: config + block + memcachedBlock(b.store, "3s", "")})
	}
}

// begin sends the request that is delayed, and returns when it has its lock.
func (b *bottleneck) begin(t *testing.T) {
	t.Helper()
	var blocker <-chan response
	blocks := b.realm + "-blocker"
	if b.connection {
		blocker = begin(b.sites[0], request{path: "/wait.php?mark=" + blocks})
		awaitMark(t, b.Rig, blocks+".started")
	}
	half := strings.Repeat("x", 300<<10) // more than a request brings along with its head
	q := request{method: b.method, path: "/turn.php?name=first&ms=50&mark=" + b.realm, session: b.session}
	var rest *io.PipeWriter
	if b.body {
		q.body, rest = io.Pipe()
		q.length = int64(2 * len(half))
	}
	b.first = begin(b.sites[0], q)
	if b.body {
		_, _ = io.WriteString(rest, half)
	}
	eventually(t, "it has the lock", func() bool { return len(b.locks(t, 0)) == 1 && b.locks(t, 0)[0].Held })
	if b.connection {
		b.awaitQueue(t, 1)
	}
	b.letOn = func() {
		if b.connection {
			letGo(t, b.Rig, blocks)
			(<-blocker).mustBe(t, "last\n")
		}
		if b.body {
			_, _ = io.WriteString(rest, half)
			rest.Close()
		}
	}
}

// next sends the next request of the session through the second gate.
func (b *bottleneck) next(path string) <-chan response {
	return begin(b.sites[1], request{path: path, session: b.session})
}

// locks are those that one of the gates knows of.
func (b *bottleneck) locks(t *testing.T, gate int) (locks []lockOfPage) {
	t.Helper()
	for _, l := range b.admins[gate].locks(t).Locks {
		if l.Realm == b.realm {
			locks = append(locks, l)
		}
	}
	return locks
}

// awaitQueue waits until n requests wait for the connection of the first gate.
func (b *bottleneck) awaitQueue(t *testing.T, n int) {
	t.Helper()
	metric := regexp.MustCompile(fmt.Sprintf(`(?m)^fpm_gate_upstream_queue\{gate="%s-0"\} %d$`, b.realm, n))
	eventually(t, fmt.Sprintf("%d requests wait for a connection", n), func() bool {
		return metric.MatchString(b.admins[0].get(t, "/metrics"))
	})
}

// finish fails the test unless both scripts have run, with the lock and one after the other, and both have counted.
func (b *bottleneck) finish(t *testing.T, next <-chan response) {
	t.Helper()
	var counts []string
	for _, answer := range []<-chan response{b.first, next} {
		r := <-answer
		if err := r.failure(); err != nil {
			t.Errorf("%s, %s: %v", b.network.Network, b.name, err)
		}
		counts = append(counts, r.body)
	}
	slices.Sort(counts)
	if want := []string{"1\n", "2\n"}; !slices.Equal(counts, want) {
		t.Errorf("%s, %s: got counts %q, want %q: an update is lost", b.network.Network, b.name, counts, want)
	}
	turns := strings.Join(notes(t, b.Rig, b.realm), " ")
	first, last := "begin:first:held end:first", "begin:next:held end:next"
	if turns != first+" "+last && turns != last+" "+first {
		t.Errorf("%s, %s: got %q, want each script with the lock, and to its end before the other",
			b.network.Network, b.name, turns)
	}
}

// eachStore runs a test with the locks in the process and in memcached.
func eachStore(t *testing.T, run func(*testing.T, string)) {
	t.Parallel()
	for _, store := range []string{"local", "memcached"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			run(t, store)
		})
	}
}

// TestExpiryBeginsWhenPHPHasTheRequest delays requests for longer than their expiry. The next ones of their sessions
// would run meanwhile, and still do after that, if the locks had been lost.
func TestExpiryBeginsWhenPHPHasTheRequest(t *testing.T) {
	eachStore(t, func(t *testing.T, store string) {
		all := newBottlenecks(t, store, delays)
		var next []<-chan response
		for _, b := range all {
			b.begin(t)
			next = append(next, b.next("/next.php?name=next&ms=1500&mark="+b.realm))
		}
		time.Sleep(lockExpiry + 500*time.Millisecond) // real time is the subject
		for _, b := range all {
			b.letOn()
		}
		for i, b := range all {
			b.finish(t, next[i])
		}
		for _, g := range all[0].gates {
			if line := lineWith(g.Log(), "lock expired"); line != "" {
				t.Errorf("got %q in the log: a script ran on without its lock", line)
			}
		}
	})
}

// TestPHPIsToldTheEarliestExpiry where the body is not whole yet, too: expiry begins when it is.
func TestPHPIsToldTheEarliestExpiry(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		block, admin := adminBlock(t)
		s := newStack(t, stackOptions{
			PHP:  rig.PHPOptions{Listen: network},
			Gate: rig.GateOptions{Listen: network, Config: block, Settings: `lock { expiry = "100s" }`},
			Site: rig.Site{Unbuffered: true},
		})
		sent := regexp.MustCompile(`fpm_gate_upstream_connections\{.*state="busy"\} 1`)
		half := strings.Repeat("x", 300<<10)
		for _, slow := range []bool{false, true} {
			body, send := io.Pipe()
			before := time.Now()
			answer := begin(s.Site, request{
				method: "PUT", // the body of a POST may be sent before the lock is acquired, if it comes slowly
				path:   "/info.php?session=0", session: newSession(), body: body, length: int64(2 * len(half)),
			})
			_, _ = io.WriteString(send, half)
			if slow {
				eventually(t, "PHP has the head", func() bool { return sent.MatchString(admin.get(t, "/metrics")) })
			}
			_, _ = io.WriteString(send, half)
			send.Close()
			expires, err := strconv.ParseInt(infoOf(t, <-answer).Gate["FPM_GATE_EXPIRES"], 10, 64)
			earliest, latest := before.Unix()+100, time.Now().Unix()+100
			if err != nil || expires < earliest || expires > latest {
				t.Errorf("slow %v: got %d and error %v, want between %d and %d", slow, expires, err, earliest, latest)
			}
		}
	})
}

// endings are how a lock ends before its time.
var endings = map[string]func(*testing.T, *bottleneck){
	"broken by an operator": func(t *testing.T, b *bottleneck) {
		if code, _, stderr := b.admins[0].run(t, "break", b.locks(t, 0)[0].Key); code != 0 {
			t.Errorf("break: got exit code %d and %q", code, stderr)
		}
	},
	"lost to another gate": func(t *testing.T, b *bottleneck) {
		lease := "fpm-gate:" + b.locks(t, 0)[0].Key
		own, _ := b.lease(t, lease)
		eventually(t, "the other gate has the lock", func() bool {
			if now, version := b.lease(t, lease); now == own { // the first gate may have added it again
				b.ask(t, fmt.Sprintf("cas %s 0 -1 %d %s\r\n%s", lease, len(own), version, own))
			}
			return marked(b.Rig, b.realm+".started")
		})
		awaitLog(t, b.gates[0].Server, fmt.Sprintf("fpm-gate.%s-0: lock lost", b.realm))
	},
}

// TestALockThatEndedBeforePHPHadTheRequestIsAcquiredAgain ends the locks of requests that wait for a connection. When
// they have it, other requests hold the locks.
func TestALockThatEndedBeforePHPHadTheRequestIsAcquiredAgain(t *testing.T) {
	waits := slices.DeleteFunc(slices.Clone(delays), func(d delay) bool { return !d.connection })
	eachStore(t, func(t *testing.T, store string) {
		for ending, end := range endings {
			if ending == "lost to another gate" && store == "local" {
				continue // there is no other
			}
			t.Run(ending, func(t *testing.T) {
				t.Parallel()
				all := newBottlenecks(t, store, waits)
				var next []<-chan response
				for _, b := range all {
					b.begin(t)
					next = append(next, b.next("/next.php?name=next&ms=0&wait=1&mark="+b.realm))
					b.awaitWaiter(t, 1)
					end(t, b)
					awaitMark(t, b.Rig, b.realm+".started")
				}
				for i, b := range all {
					b.letOn()
					b.awaitWaiter(t, 0)
					// It waits for its lock, and not with the connection.
					ask(b.sites[0], request{path: "/hello.php"}).mustBe(t, "hello\n")
					letGo(t, b.Rig, b.realm)
					b.finish(t, next[i])
				}
			})
		}
	})
}

// awaitWaiter waits until a request waits for the lock in one of the gates.
func (b *bottleneck) awaitWaiter(t *testing.T, gate int) {
	t.Helper()
	eventually(t, "a request waits for the lock", func() bool {
		locks := b.locks(t, gate)
		return len(locks) == 1 && len(locks[0].Waiters) == 1 &&
			locks[0].Waiters[0].Gate == fmt.Sprintf("%s-%d", b.realm, gate)
	})
}

// lease is the value of a lease in memcached, and its version; "": there is none.
func (b *bottleneck) lease(t *testing.T, name string) (value, version string) {
	t.Helper()
	lines := b.ask(t, "gets "+name)
	if len(lines) < 2 {
		return "", ""
	}
	fields := strings.Fields(lines[0]) // VALUE name flags length version
	return lines[1], fields[len(fields)-1]
}

// ask sends a command to the memcached of the locks.
func (b *bottleneck) ask(t *testing.T, command string) (lines []string) {
	t.Helper()
	lines, err := askMemcached(b.store.Addr, command)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
