package sessionlock_test

import (
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The vectors were made with Python's hashlib and hmac: other programs have to find the same keys.
func TestKeyForVectors(t *testing.T) {
	for _, c := range []struct{ name, secret, realm, id, want string }{
		{"no secret", "", "www", "0123456789abcdef", "af3cc79def70247a2bb0cf0d019a6e04"},
		{"a secret", "secret", "www", "0123456789abcdef", "1db8ebbd7390fbd3702d3066af3313fb"},
		{"all empty", "", "", "", "6e340b9cffb37a989ca544e6bb780a2c"},
		{"a realm whose length takes two bytes", "", strings.Repeat("r", 300), "id", "5ed0d917bcd1f6b4bc86371d7bcedbdf"},
		{"the example of docs/RELIABILITY.md", "", "shop", "abc123", "cf79538946ce98e38835f608c69ff143"},
		{"a very long id", "", "www", strings.Repeat("x", 4096), "629f4ea838610b95ab99c66925d7ccfb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := sessionlock.KeyFor([]byte(c.secret), c.realm, []byte(c.id))
			if got := key.String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got, want := key.Short(), c.want[:8]; got != want {
				t.Errorf("got %s in short, want %s", got, want)
			}
		})
	}
}

func TestKeysOfDifferentSessionsDiffer(t *testing.T) {
	keys := make(map[sessionlock.Key]string)
	for _, c := range []struct{ name, secret, realm, id string }{
		{"a session", "", "www", "abc"},
		{"another id", "", "www", "abd"},
		{"another realm", "", "shop", "abc"},
		{"the id's begin in the realm", "", "wwwa", "bc"},
		{"the realm's end in the id", "", "ww", "wabc"},
		{"no realm", "", "", "wwwabc"},
		{"a secret", "s", "www", "abc"},
		{"another secret", "t", "www", "abc"},
	} {
		key := sessionlock.KeyFor([]byte(c.secret), c.realm, []byte(c.id))
		if other, known := keys[key]; known {
			t.Errorf("%s and %s have the same key", c.name, other)
		}
		keys[key] = c.name
	}
}
