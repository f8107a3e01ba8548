package rig

import (
	"fmt"
	"time"
)

// Site is one HTTP address of a web server that passes its PHP scripts on by FastCGI. All web servers of the rig accept
// it.
type Site struct {
	// Listen is a loopback port; if zero, the server's start sets it.
	Listen Addr
	// FastCGI is the address of PHP-FPM, or of the gate before it.
	FastCGI Addr
	// DocRoot is the folder of the scripts, the rig's own if empty.
	DocRoot string

	// Keepalive is how many connections to FastCGI the server keeps open between requests; 0: a connection for each
	// request. lighttpd and Caddy cannot keep them, and do not start with it.
	Keepalive int
	// Multiplex is how many requests at once the server may send over one connection to FastCGI, with Keepalive; 0: one.
	// Only HAProxy can.
	Multiplex int
	// AskValues: the server asks FastCGI for its limits first. Only HAProxy does.
	AskValues bool
	// Unbuffered: bodies of requests and responses are passed on as they come, as far as the server can.
	Unbuffered bool
	// Timeout is how long the server waits for the next bytes from FastCGI; 60 s if zero.
	Timeout time.Duration
	// Settings are more lines of the site's own section, in the language of the server's configuration; in nginx they
	// stand where the FastCGI directives do.
	Settings string
}

// URL returns the URL of a path, which must start with a slash, on the site.
func (s *Site) URL(path string) string { return "http://" + s.Listen.Address + path }

// complete fills in what the site leaves open.
func (s *Site) complete(r *Rig) (err error) {
	if s.FastCGI.Address == "" {
		return fmt.Errorf("a site needs a FastCGI address")
	}
	if s.DocRoot == "" {
		s.DocRoot = r.DocRoot
	}
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	s.Listen, err = r.choose(s.Listen, TCP, "")
	return err
}

// Seconds returns Timeout in whole seconds, at least one, for the configuration files.
func (s *Site) Seconds() int { return max(1, int(s.Timeout.Seconds())) }
