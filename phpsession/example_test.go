package phpsession_test

import (
	"fmt"
	"regexp"

	"github.com/fpm-gate/fpm-gate/phpsession"
)

// PHP decodes the value of a cookie, but takes the first cookie of a name.
func ExampleRules_ID() {
	rules := phpsession.Rules{Cookies: []string{"PHPSESSID"}}
	id, ok := rules.ID([]byte("theme=dark; PHPSESSID=abc%2Ddef; PHPSESSID=other"), nil)
	fmt.Printf("%s %t\n", id, ok)

	_, ok = rules.ID([]byte("theme=dark"), nil)
	fmt.Println(ok)
	// Output:
	// abc-def true
	// false
}

// Some applications put more than the id into their cookie.
func ExampleRules_pattern() {
	rules := phpsession.Rules{
		Cookies:   []string{"SESS*"}, // the name ends in a hash of the site
		IDPattern: regexp.MustCompile(`^s:([^.]+)\.`),
	}
	id, ok := rules.ID([]byte("SESS5f0c=s:abc.signature"), nil)
	fmt.Printf("%s %t\n", id, ok)
	// Output: abc true
}
