package memcachelock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"hash/crc32"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	server := netaddr.Addr{Network: "tcp", Address: "127.0.0.1:1"}
	for name, o := range map[string]memcachelock.Options{
		"no server":             {},
		"a quorum of one":       {Servers: []netaddr.Addr{server}, Quorum: true},
		"a quorum of four":      {Servers: []netaddr.Addr{server, server, server, server}, Quorum: true},
		"a lease under 3s":      {Servers: []netaddr.Addr{server}, Lease: 2 * time.Second},
		"a negative timeout":    {Servers: []netaddr.Addr{server}, Timeout: -1},
		"a space in a prefix":   {Servers: []netaddr.Addr{server}, Prefix: "a b"},
		"a prefix that is long": {Servers: []netaddr.Addr{server}, Prefix: strings.Repeat("a", 129)},
	} {
		if s, err := memcachelock.New(o); err == nil {
			s.Close()
			t.Errorf("%s: got no error", name)
		}
	}
}

// An uncontended lock takes an add and a gets in the way of the request, in one go, and a cas in the background.
func TestAnUncontendedLockTakesThreeCommands(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	relay := newRelay(t, f.servers[0])
	o := f.options()
	o.Servers[0] = netaddr.Addr{Network: "tcp", Address: relay.address()}
	m := sessionlock.NewManager(f.store(t, o))
	lockSoon(t, m, newKey(t)).Release()
	relay.settle(t)
	key := newKey(t)
	before := relay.commands(lockName(key))
	l := lockSoon(t, m, key)
	relay.settle(t)
	l.Release()
	eventually(t, "the lock is free", func() bool {
		got, _ := talkTo(t, f.servers[0]).get("get", lockName(key))
		return got == ""
	})
	relay.settle(t)
	got := relay.commands(lockName(key))[len(before):]
	if want := []string{"add", "gets", "cas"}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got the commands %q, want %q", got, want)
	}
	if got := relay.questions(lockName(key)); got != 2 {
		t.Errorf("they took %d round trips, want 2", got)
	}
}

func TestAnyHostCanSayWhoHolds(t *testing.T) {
	t.Parallel()
	for name, quorum := range map[string]bool{"one server": false, "a quorum": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3)
			o := f.options()
			o.Quorum, o.Gate, o.Host = quorum, "www shop", "web-1.example"
			here := f.store(t, o)
			o.Host = "web-2.example"
			there := f.store(t, o)
			l := lockSoon(t, sessionlock.NewManager(here), newKey(t))
			h, ok, err := there.Holder(context.Background(), l.Key())
			if err != nil || !ok {
				t.Fatalf("got %v, error %v, want a holder", ok, err)
			}
			if h.Gate != "www shop" || h.Host != "web-1.example" || h.Token != l.Token() || time.Since(h.Since).Abs() > time.Minute {
				t.Errorf("got %+v", h)
			}
			l.Release()
			eventually(t, "the lock is free", func() bool {
				_, ok, err := there.Holder(context.Background(), l.Key())
				return err == nil && !ok
			})
		})
	}
}

// A program in another language finds the server of a lock by what the package's doc says.
func TestALockIsWhereTheDocSays(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	m := sessionlock.NewManager(f.store(t, f.options()))
	for range 20 {
		l := lockSoon(t, m, newKey(t))
		name := lockName(l.Key())
		want := int(crc32.ChecksumIEEE([]byte(name)) % 3)
		for i, s := range f.servers {
			if got, _ := talkTo(t, s).get("get", name); (got != "") != (i == want) {
				t.Errorf("server %d has %q of %s, want it on server %d only", i, got, name, want)
			}
		}
		l.Release()
	}
}

func TestMemcachedWithAuthentication(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("gate:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFleet(t, 1, "-Y", file)
	o := f.options()
	o.Username, o.Password = "gate", "secret"
	lockSoon(t, sessionlock.NewManager(f.store(t, o)), newKey(t)).Release()
	o.Password = "wrong"
	wantStoreError(t, sessionlock.NewManager(f.store(t, o)), newKey(t))
}

func TestMemcachedWithTLS(t *testing.T) {
	t.Parallel()
	certificate, key, pool := makeCertificate(t)
	f := startFleet(t, 1, "-Z", "-o", "ssl_chain_cert="+certificate+",ssl_key="+key)
	o := f.options()
	o.TLS = &tls.Config{RootCAs: pool}
	lockSoon(t, sessionlock.NewManager(f.store(t, o)), newKey(t)).Release()
	reports, err := memcachelock.Probe(context.Background(), o)
	if err != nil || reports[0].Err != nil {
		t.Errorf("probe: got error %v, %v", err, reports[0].Err)
	}
	o.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	wantStoreError(t, sessionlock.NewManager(f.store(t, o)), newKey(t))
}

// makeCertificate makes the files of a certificate for 127.0.0.1, and a pool that trusts it.
func makeCertificate(t *testing.T) (certificate, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "memcached"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER), pool
}

// A gate that waits notes that next to the lock, and leaves no note when it has gone.
func TestAWaitingGateIsInTheLine(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	key := newKey(t)
	l := lockSoon(t, sessionlock.NewManager(f.store(t, f.options())), key)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	waiter := sessionlock.NewManager(f.store(t, f.options()))
	go func() {
		_, err := waiter.Acquire(ctx, key, nil, sessionlock.Policy{MaxWait: time.Minute})
		done <- err
	}()
	line := func() string {
		value, _ := talkTo(t, f.servers[0]).get("get", lockName(key)+":line")
		return value
	}
	eventually(t, "the waiter is in the line", func() bool { return line() != "" })
	if got := line(); len(got) != 16 {
		t.Errorf("got the line %q, want one manager", got)
	} else if _, err := strconv.ParseUint(got, 16, 64); err != nil {
		t.Errorf("got the line %q, want hexadecimal digits", got)
	}
	cancel()
	<-done
	eventually(t, "the line is left", func() bool { return line() == "" })
	l.Release()
}
