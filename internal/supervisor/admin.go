package supervisor

import (
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
)

// operators serves the admin where the config says, which a reload may change.
type operators struct {
	env Admin
	log hclog.Logger

	at       *config.Admin // nil: nowhere
	listener net.Listener  // of server
	server   io.Closer     // nil: there is none
}

// open opens the listener that c names. It returns nil if nothing is to be opened.
func (o *operators) open(c *config.Admin) (net.Listener, error) {
	if c == nil || o.at != nil && o.at.Listen == c.Listen && !o.env.IsGone(o.listener) {
		return nil, nil
	}
	l, err := o.env.ListenAdmin(c)
	if err != nil {
		return nil, fmt.Errorf("admin: listen on %s: %w", c.Listen, err)
	}
	return l, nil
}

// serve serves operators on l, which open has opened for c, instead of where it did so far.
func (o *operators) serve(c *config.Admin, l net.Listener) {
	before := o.at
	o.at = c
	switch {
	case l != nil:
		old := o.server
		o.server, o.listener = o.env.ServeAdmin(l), l
		o.log.Info("admin listening", "listen", c.Listen)
		closeServer(old)
	case c == nil:
		closeServer(o.server)
		o.server = nil
	case c.Listen.Network == "unix" && c.ListenMode != before.ListenMode:
		if err := o.env.SetAdminAccess(c); err != nil {
			o.log.Error("mode of the admin's socket stays as it was", "error", err)
		}
	}
}

// stop closes the admin and its connections. Once serve is no longer called, it may be called concurrently.
func (o *operators) stop() {
	o.env.CloseAdmin()
	closeServer(o.server)
}

func closeServer(s io.Closer) {
	if s != nil {
		_ = s.Close()
	}
}
