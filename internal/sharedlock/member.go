package sharedlock

import (
	"sync"
	"sync/atomic"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// member is one of a store's servers, with what the store has in flight there: tickets, writes in doubt, and the poller
// of the locks that are waited for.
type member struct {
	kv.Server
	tickets
	poller *kv.Poller

	// Leases of ours have yet to be added again: those that the server could not be asked for, or all.
	restore, restoreAll atomic.Bool
	addLeases           func(all bool) // adds them

	mu     sync.Mutex
	doubts []doubt
}

func (m *member) isUp() bool { return m.State().Down == nil }

func (m *member) granting() bool { return m.State().Granting() }

// reAddAll adds all leases of ours that belong there, now or when it is up.
func (m *member) reAddAll() {
	m.restoreAll.Store(true)
	m.reAdd()
}

// reAdd adds the leases of ours that the server may lack, if it is up. Those that fail are left to the next heartbeat.
func (m *member) reAdd() {
	if !m.isUp() {
		return
	}
	all := m.restoreAll.Swap(false)
	if some := m.restore.Swap(false); some || all {
		m.background.Go(func() { m.addLeases(all) })
	}
}
