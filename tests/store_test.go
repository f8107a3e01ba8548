package tests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// twins are two gates with a web server each, before one PHP-FPM, whose locks are in the same memcached.
type twins struct {
	*rig.Rig
	store *rig.Server
	php   *rig.PHPFPM
	gates [2]*rig.Gate
	sites [2]*rig.Site
}

func newTwins(t *testing.T, settings string) *twins {
	t.Helper()
	return newTwinsWithLease(t, "3s", settings)
}

func newTwinsWithLease(t *testing.T, lease, settings string) *twins {
	t.Helper()
	p := &twins{Rig: newRig(t, "nginx", "php-fpm", "memcached")}
	p.store = rigtest.Start(t, p.Memcached, rig.StoreOptions{})
	p.php = rigtest.Start(t, p.PHPFPM, rig.PHPOptions{})
	for i := range p.gates {
		p.gates[i] = startGate(t, p.Rig, rig.GateOptions{Upstream: p.php.Addr, Settings: settings, Config: memcachedBlock(p.store, lease, "")})
		p.sites[i] = &rig.Site{FastCGI: p.gates[i].Addr}
		rigtest.Start(t, p.Nginx, rig.NginxOptions{Sites: []*rig.Site{p.sites[i]}})
	}
	return p
}

func memcachedBlock(s *rig.Server, lease, more string) string {
	const block = "memcached {\n  servers = [%q]\n  secret = \"hush\"\n  lease = %q\n  %s\n}\n"
	return fmt.Sprintf(block, s.Addr, lease, more)
}

const inMemcached = `lock { store = "memcached" }`

// mustWait has a session held through one site and asks for it through another: the answer must not come before the
// holder has ended.
func (p *twins) mustWait(t *testing.T, holder, waiter *rig.Site, mark string) {
	t.Helper()
	session := newSession()
	held := begin(holder, request{path: "/wait.php?mark=" + mark, session: session})
	awaitMark(t, p.Rig, mark+".started")
	waits := begin(waiter, request{path: "/note.php?mark=" + mark + ".notes&say=second", session: session})
	select {
	case r := <-waits:
		t.Errorf("a request of the session was served concurrently with its holder: %+v", r)
	case <-time.After(300 * time.Millisecond):
	}
	letGo(t, p.Rig, mark)
	(<-held).mustBe(t, "last\n")
	(<-waits).mustBe(t, "second\n")
}

func TestGatesMeetTheSameLockInMemcached(t *testing.T) {
	t.Parallel()
	p := newTwins(t, inMemcached)
	p.mustWait(t, p.sites[0], p.sites[1], "there")
	p.mustWait(t, p.sites[1], p.sites[0], "back")
}

// Locks move to another memcached and into the process and back: a request that is there is served to its end, and
// nothing stays connected to a memcached that no gate uses.
func TestReloadMovesTheLocks(t *testing.T) {
	t.Parallel()
	p := newTwins(t, inMemcached)
	next := rigtest.Start(t, p.Memcached, rig.StoreOptions{})
	g, site := p.gates[0], p.sites[0]
	session := newSession()
	held := begin(site, request{path: "/wait.php?mark=before", session: session})
	awaitMark(t, p.Rig, "before.started")
	waits := begin(site, request{path: "/hello.php", session: session})
	inFirst := g.Config

	reload(t, g, strings.Replace(inFirst, p.store.Addr.String(), next.Addr.String(), 1))
	awaitLog(t, g.Server, "lock store changed")
	p.mustWait(t, site, site, "in-next")
	if n := connections(t, p.store); n < 3 { // the other gate's, this one's and ours
		t.Errorf("the old memcached has %d connections while a lock of its is held", n)
	}
	reload(t, g, strings.Replace(inFirst, inMemcached, "", 1))
	p.mustWait(t, site, site, "local")
	letGo(t, p.Rig, "before")
	(<-held).mustBe(t, "last\n")
	(<-waits).mustBe(t, "hello\n")
	eventually(t, "no gate is connected to the second memcached", func() bool { return connections(t, next) == 1 })

	reload(t, g, inFirst)
	p.mustWait(t, p.sites[1], site, "again")
}

// TestAGateMoreLeavesTheQueuesOfTheOthers: a reload adds a gate whose locks are in memcached, and takes it away again.
// What waits at the gates that were there goes on waiting in the one queue, ahead of what comes after the reload, also
// through the new gate.
func TestAGateMoreLeavesTheQueuesOfTheOthers(t *testing.T) {
	t.Parallel()
	p := newTwins(t, "realm = \"shop\"\n"+inMemcached+queueRoutes(5))
	g, site := p.gates[0], p.sites[0]
	listen, err := p.Reserve("unix", "more")
	if err != nil {
		t.Fatal(err)
	}
	more := &rig.Site{FastCGI: listen}
	rigtest.Start(t, p.Nginx, rig.NginxOptions{Sites: []*rig.Site{more}})
	both := g.Config + gateOf("more", listen, fmt.Sprintf("address = %q", p.php.Addr), "realm = \"shop\"\n"+inMemcached)
	for name, config := range map[string][2]string{"one more": {g.Config, both}, "one less": {both, g.Config}} {
		reload(t, g, config[0])
		session := newSession()
		s := &stack{Rig: p.Rig, Gate: g, Site: site}
		mark := strings.ReplaceAll(name, " ", "-")
		held := s.hold(t, session, mark)
		var waits []<-chan response
		queue := func(site *rig.Site, say string) {
			waits = append(waits, begin(site, request{path: "/note.php?mark=" + mark + ".notes&say=" + say, session: session}))
			s.awaitQueue(t, session, len(waits))
		}
		queue(site, "first")
		queue(site, "second")
		reload(t, g, config[1])
		queue(site, "third")
		if config[1] == both {
			queue(more, "fourth")
		}
		queue(site, "last")
		letGo(t, p.Rig, mark)
		(<-held).mustBe(t, "last\n")
		for _, w := range waits {
			<-w
		}
		got, want := strings.Join(notes(t, p.Rig, mark+".notes"), " "), "first second third last"
		if config[1] == both {
			want = "first second third fourth last"
		}
		if got != want {
			t.Errorf("%s: got the order %q, want %q", name, got, want)
		}
	}
	if text := "new requests do not see them"; strings.Contains(g.Log(), text) {
		t.Errorf("the log says %q", text)
	}
}

// connections is how many a memcached has, with the one that asks.
func connections(t *testing.T, s *rig.Server) int {
	t.Helper()
	lines, err := askMemcached(s.Addr, "stats")
	if err != nil {
		t.Fatal(err)
	}
	n := -1
	for _, line := range lines {
		_, _ = fmt.Sscanf(line, "STAT curr_connections %d", &n)
	}
	if n < 0 {
		t.Fatal("a memcached does not tell its connections")
	}
	return n
}

// askMemcached sends a command to a memcached, and returns the lines of its answer.
func askMemcached(a rig.Addr, command string) ([]string, error) {
	nc, err := net.Dial(a.Network, a.Address)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := io.WriteString(nc, command+"\r\nquit\r\n"); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(nc) // it closes the connection when it has answered
	return strings.Split(strings.TrimSuffix(string(answer), "\r\n"), "\r\n"), err
}

func TestWhatBecomesOfARequestWhoseStoreFails(t *testing.T) {
	t.Parallel()
	p := newTwins(t, `lock {
    store            = "memcached"
    on_store_failure = "local"
  }
  route "reject" {
    path             = ["/hello.php"]
    on_store_failure = "reject"
  }
  route "pass" {
    path             = ["/reads.php"]
    on_store_failure = "pass"
  }`)
	p.mustWait(t, p.sites[0], p.sites[1], "well")
	p.store.Kill()
	awaitLog(t, p.gates[0].Server, "memcached is down")
	mustBeSentAway(t, ask(p.sites[0], request{path: "/hello.php", session: newSession()}), http.StatusServiceUnavailable, "1")
	p.mustWait(t, p.sites[0], p.sites[0], "alone")
	if r := ask(p.sites[0], request{path: "/reads.php?name=x", session: newSession()}); r.status != http.StatusOK {
		t.Errorf("on_store_failure = \"pass\": got %+v", r)
	}
	if err := p.store.Start(); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, p.gates[0].Server, "memcached is up")
	awaitLog(t, p.gates[1].Server, "memcached is up")
	eventually(t, "locks can be had again", func() bool {
		return ask(p.sites[0], request{path: "/hello.php", session: newSession()}).status == http.StatusOK
	})
	p.mustWait(t, p.sites[0], p.sites[1], "again")
}

func TestMemcachedWithPasswordAndTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, "nginx", "php-fpm", "memcached")
	accounts := filepath.Join(t.TempDir(), "accounts")
	if err := os.WriteFile(accounts, []byte("gate:hush-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t)
	store := rigtest.Start(t, r.Memcached, rig.StoreOptions{Args: []string{"-Y", accounts, "-Z",
		"-o", "ssl_chain_cert=" + cert, "-o", "ssl_key=" + key, "-o", "ssl_ca_cert=" + cert, "-o", "ssl_verify_mode=2"}})
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	secrets := fmt.Sprintf("username = \"gate\"\n password = \"hush-hush\"\n tls {\n ca = %q\n cert = %q\n key = %q\n }", cert, cert, key)
	p := &twins{Rig: r}
	g := startGate(t, r, rig.GateOptions{Upstream: php.Addr, Settings: `lock {
    store            = "memcached"
    on_store_failure = "reject"
  }`, Config: memcachedBlock(store, "3s", secrets)})
	site := &rig.Site{FastCGI: g.Addr}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	eventually(t, "locks can be had", func() bool {
		return ask(site, request{path: "/hello.php", session: newSession()}).status == http.StatusOK
	})
	p.mustWait(t, site, site, "tls")

	wrong := strings.Replace(g.Config, "hush-hush", "guess", 1)
	reload(t, g, wrong)
	eventually(t, "a wrong password is reported", func() bool { return strings.Contains(g.Log(), "authenticate") })
	mustBeSentAway(t, ask(site, request{path: "/hello.php", session: newSession()}), http.StatusServiceUnavailable, "1")
}

// certificate makes a certificate for loopback that signs itself, and returns its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "fpm-gate test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", signed), write("key.pem", "PRIVATE KEY", encoded)
}
