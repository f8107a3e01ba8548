package sessionwatch

// session is a watched session file. The mutex of Files guards it and its watches.
//
// inotify does not show which process opens or closes the file, nor how often: the kernel merges identical events. So
// any close after an open ends a watch. A script that runs out of turn may end another's watch too early, which does no
// harm, and no watch lasts longer than the file is open. Only a close followed by an open in the same read ends
// nothing: it is session_reset(), or the next script.
type session struct {
	first     *fileWatch // the head of the list of its watches
	closing   bool       // the last event was a close
	destroyed bool       // the file has been deleted
}

// fileWatch is one request's watch over a session file.
type fileWatch struct {
	files       *Files
	dir         *directory
	name        string // of the session in dir
	session     *session
	changed     func(State)
	next        *fileWatch // in the list of the session
	state       State
	prioritized bool
	stopped     bool
}

// watch starts a watch over the session whose file has that name, without its prefix.
func (d *directory) watch(f *Files, name []byte, changed func(State), state State) *fileWatch {
	s := d.sessions[string(name)]
	w := &fileWatch{files: f, dir: d, changed: changed, state: state}
	if s == nil {
		s = new(session)
		w.name = string(name)
		d.sessions[w.name] = s
	} else {
		w.name = s.first.name
	}
	w.session, w.next, s.first = s, s.first, w
	return w
}

func (s *session) remove(w *fileWatch) {
	for p := &s.first; *p != nil; p = &(*p).next {
		if *p == w {
			*p = w.next
			return
		}
	}
}

// sawOpen notes that the file was opened. If a script that runs out of turn opened it, PHP lets that script go first,
// so waiting for it is right too.
func (s *session) sawOpen() {
	s.closing = false
	for w := s.first; w != nil; w = w.next {
		if w.state == Unseen || w.state == Unopened {
			w.state = Open
		}
	}
}

// close ends the watches over a file that was closed. To a watch that has not seen it opened, the close is evidence
// that PHP keeps the session here.
func (s *session) close() {
	s.closing = false
	for w := s.first; w != nil; w = w.next {
		switch w.state {
		case Unseen:
			w.state = Unopened
		case Open, Presumed:
			w.become(Closed)
			w.changed(Closed)
		}
	}
}

// forget makes the watches of s Unknown.
func (s *session) forget() {
	for w := s.first; w != nil; w = w.next {
		if w.state != Unknown && w.state != Closed {
			w.become(Unknown)
			w.changed(Unknown)
		}
	}
}

// become sets the state, and ends the watch's need for prompt events.
func (w *fileWatch) become(s State) {
	w.state = s
	if w.prioritized {
		w.prioritized = false
		w.files.wanted--
	}
}

// State reads the events that have arrived and returns the state.
func (w *fileWatch) State() State {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	w.files.drain()
	return w.state
}

// Asks returns false: the kernel reports events.
func (w *fileWatch) Asks() bool { return false }

// Prioritize makes the reader read events soon after they arrive.
func (w *fileWatch) Prioritize() {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	w.files.drain()
	if w.prioritized || w.stopped || w.state == Unknown || w.state == Closed {
		return
	}
	w.prioritized = true
	w.files.wanted++
	select {
	case w.files.wake <- struct{}{}:
	default: // the reader has been woken already
	}
}

// Destroyed reads the events that have arrived: PHP closes the file before it deletes it.
func (w *fileWatch) Destroyed() bool {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	w.files.drain()
	return w.session.destroyed
}

func (w *fileWatch) Stop() {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	w.become(w.state)
	w.session.remove(w)
	if w.session.first == nil && w.dir.sessions[w.name] == w.session {
		delete(w.dir.sessions, w.name)
	}
}
