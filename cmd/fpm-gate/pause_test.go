package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// A deploy that goes on after "pause --wait" must not do so when the command was interrupted.
func TestInterruptedPauseIsNoSuccess(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	gate := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		interrupt() // while the command waits for the answer
		<-r.Context().Done()
	}))
	defer gate.Close()
	c := newAdminClient(netaddr.Addr{Network: "tcp", Address: gate.Listener.Addr().String()})
	page := &admin.PausePage{Gates: []admin.Pause{{Gate: "www", Paused: true, Running: 1}}}
	err := c.awaitIdle(ctx, io.Discard, nil, page)
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v, want an error that the wait was interrupted", err)
	}
}
