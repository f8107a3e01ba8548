package config_test

import (
	"errors"
	"fmt"

	"github.com/fpm-gate/fpm-gate/config"
)

func ExampleParse() {
	c, err := config.Parse([]byte(`
		gate "shop" {
		  listen = "unix:/run/fpm-gate/shop.sock"
		  upstream { address = "unix:/run/php/php-fpm.sock" }
		  lock { max_wait = "10s" }
		}`), "fpm-gate.hcl")
	if err != nil {
		fmt.Println(err)
		return
	}
	g := c.Gates[0]
	fmt.Println(g.Name, g.Listen, g.Lock.MaxWait, g.Session.Cookies)
	// Output: shop unix:/run/fpm-gate/shop.sock 10s [PHPSESSID]
}

// An Error has all that is wrong with a file, each with its place.
func ExampleError() {
	_, err := config.Parse([]byte(`
gate "shop" {
  listen = "unix:/run/shop.sock"
  upstream { addres = "unix:/run/php/php-fpm.sock" }
}`), "fpm-gate.hcl")
	if invalid, is := errors.AsType[*config.Error](err); is {
		for _, line := range invalid.Lines() {
			fmt.Println(line)
		}
	}
	// Output:
	// fpm-gate.hcl:4: upstream needs address: For example: address = "unix:/run/php/php-fpm.sock".
	// fpm-gate.hcl:4: upstream has no key "addres": Did you mean "address"?
}
