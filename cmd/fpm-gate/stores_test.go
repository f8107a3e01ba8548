package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

func TestAllOfTheMemcachedBlockReachesTheStore(t *testing.T) {
	c := parseConfig(t, `
		memcached {
		  servers       = ["10.0.0.1:11211", "unix:/run/memcached.sock", "10.0.0.3:11211"]
		  timeout       = "100ms"
		  lease         = "5s"
		  key_prefix    = "shop:"
		  secret        = "hush"
		  quorum        = true
		  max_poll_rate = 500
		  username      = "gate"
		  password      = "hush-hush"
		  tls {}
		}`)
	got, err := storeOptions(c.Memcached)
	if err != nil {
		t.Fatal(err)
	}
	if got.TLS == nil {
		t.Error("got no TLS")
	}
	got.TLS = nil
	want := memcachelock.Options{
		Servers:     []netaddr.Addr{{Network: "tcp", Address: "10.0.0.1:11211"}, {Network: "unix", Address: "/run/memcached.sock"}, {Network: "tcp", Address: "10.0.0.3:11211"}},
		Timeout:     100 * time.Millisecond,
		Lease:       5 * time.Second,
		Prefix:      "shop:",
		Quorum:      true,
		MaxPollRate: 500,
		Secret:      []byte("hush"),
		Username:    "gate",
		Password:    "hush-hush",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFilesOfATLSBlockThatAreNotThereAreNamed(t *testing.T) {
	for _, block := range []config.TLS{
		{CA: "/nonexistent/ca.pem"},
		{Cert: "/nonexistent/cert.pem", Key: "/nonexistent/key.pem"},
		{CA: "/dev/null"}, // no certificate in it
	} {
		if _, err := storeTLS(&block); err == nil {
			t.Errorf("%+v: got no error", block)
		}
	}
}

// Every setting of a gate must change its options, or where it listens.
func TestAllOfAGateBlockReachesTheGate(t *testing.T) {
	plain := parseConfig(t, "")
	was := withoutFuncs(gateOptions(plain, plain.Gates[0]))
	if again := withoutFuncs(gateOptions(plain, plain.Gates[0])); !reflect.DeepEqual(again, was) {
		t.Fatalf("got two different options from one config: %+v and %+v", again, was)
	}
	lines := []string{
		`realm = "x"`, `max_conns = 7`, `max_params = "8KiB"`, `head_timeout = "7s"`, `idle_timeout = "7s"`,
		`session { application = "drupal" }`, `session { cookies = ["x"] }`, `session { id_pattern = "^(.*)x" }`,
		"session {\nformat = \"laravel\"\nkeys = [\"0123456789abcdef\"]\n}",
		`session { locks = true }`, `session { query = ["x"] }`, `session { param = "X" }`, `session { handler = "files" }`,
		`session { max_input_vars = 7 }`, `session { open_within = "7s" }`,
		`lock { max_wait = "7s" }`, `lock { expiry = "7s" }`, `lock { max_waiters = 7 }`, `lock { on_max_wait = "pass" }`,
		`lock { on_rotation = "pass" }`, `lock { on_abandon = "terminate" }`, `lock { terminate_grace = "700ms" }`,
		`lock { on_expiry = "abort" }`, `lock { on_expiry = "terminate" }`, `lock { release_on = "end" }`, `lock { on_store_failure = "reject" }`, `lock { on_store_failure = "pass" }`,
		`lock { abandon_after = "7s" }`, `lock { release_on = "headers" }`, `lock { status = 418 }`, `lock { retry_after = "7s" }`,
		`lock { server_timing = true }`, `lock { observe = true }`,
		`route "x" { path = ["/x"] }`, `route "x" { mode = "off" }`, `route "x" { methods = ["GET"] }`, `route "x" { host = ["x"] }`,
	}
	for _, key := range keysOfSample(t) {
		named := regexp.MustCompile(`\b` + key + ` = `)
		if !slices.ContainsFunc(lines, named.MatchString) {
			t.Errorf("%s of the sample is not tried here", key)
		}
	}
	for _, line := range lines {
		c := parseConfig(t, "", line)
		if got := withoutFuncs(gateOptions(c, c.Gates[0])); reflect.DeepEqual(got, was) {
			t.Errorf("%s: nothing has changed", line)
		}
	}
	for _, line := range []string{`connect_timeout = "7s"`, `max_connections = 7`, `queue_timeout = "7s"`, `unreachable_wait = "7s"`, `reuse = "7s"`, `idle = "7s"`,
		`ping_path = "/x"`, `status_path = "/x"`, `probe_interval = "7s"`} {
		c, err := config.Parse([]byte(`gate "www" {
  listen = "unix:/run/www.sock"
  upstream {
    address = "unix:/run/php.sock"
    `+line+`
  }
}`), "test.hcl")
		if err != nil {
			t.Fatal(err)
		}
		if got := withoutFuncs(gateOptions(c, c.Gates[0])); reflect.DeepEqual(got, was) {
			t.Errorf("upstream: %s: nothing has changed", line)
		}
	}
}

// withoutFuncs returns options without their functions, because reflect.DeepEqual never finds two functions equal.
func withoutFuncs(o gate.Options) gate.Options {
	o.Suggest = nil
	return o
}

// keysOfSample returns the keys of the blocks session and lock that become options of a gate.
func keysOfSample(t *testing.T) (keys []string) {
	t.Helper()
	sample, err := os.ReadFile("../../config/fpm-gate.hcl")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{"save_path", "key_prefix", "watch", "store"} // they choose a watcher and a store
	for _, block := range regexp.MustCompile(`(?ms)^  (?:session|lock) \{$.*?^  \}$`).FindAllString(string(sample), -1) {
		for _, key := range regexp.MustCompile(`(?m)^    # ([a-z_]+) = `).FindAllStringSubmatch(block, -1) {
			if !slices.Contains(elsewhere, key[1]) {
				keys = append(keys, key[1])
			}
		}
	}
	if len(keys) < 20 {
		t.Fatalf("got the keys %q, want those of both blocks", keys)
	}
	return keys
}

// parseConfig parses a config of one gate, with extra blocks outside and lines inside it.
func parseConfig(t *testing.T, outside string, inGate ...string) *config.Config {
	t.Helper()
	text := "gate \"www\" {\n  listen = \"unix:/run/www.sock\"\n  upstream { address = \"unix:/run/php.sock\" }\n"
	for _, line := range inGate {
		text += line + "\n"
	}
	c, err := config.Parse([]byte(text+"}\n"+outside), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
