package sessionlock

// Sessions is how many sessions m keeps in memory.
func (m *Manager) Sessions() (n int) {
	for i := range m.shards {
		m.shards[i].mu.Lock()
		n += len(m.shards[i].sessions)
		m.shards[i].mu.Unlock()
	}
	return n
}

// Renewals is how many leases m renews.
func (m *Manager) Renewals() int {
	m.renewer.mu.Lock()
	defer m.renewer.mu.Unlock()
	return m.renewer.order.Len() + len(m.renewer.due)
}

// Leases is how many leases and turns s keeps in memory.
func (s *Local) Leases() (n int) {
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].leases)
		s.shards[i].mu.Unlock()
	}
	return n
}
