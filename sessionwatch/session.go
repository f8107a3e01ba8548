package sessionwatch

// session is a session file that is watched. It is guarded by the mutex of Files, as its watches are.
//
// Which process opens it and which closes it cannot be told; nor how often, as the kernel makes one event of several
// that are alike. So whatever close comes after an open ends a watch: a script that is out of turn may end that of
// another too early, which does no harm, and none lasts longer than the file is open. Only a close that is followed by
// an open in the same read ends nothing: it is session_reset(), or a script that goes on at once.
type session struct {
	first     *fileWatch // of its watches
	closing   bool       // a close is the last that was read of it
	destroyed bool       // the file has been deleted
}

// fileWatch is one request's watch over a session file.
type fileWatch struct {
	files    *Files
	dir      *directory
	name     string // of the session in dir
	session  *session
	changed  func(State)
	next     *fileWatch // of the session
	state    State
	isWanted bool
	stopped  bool
}

// watch begins a watch over the session whose file's name ends so.
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

// sawOpen notes that the file was opened. If not by the script of a watch, but by one that is out of turn, then PHP lets
// that one go first, and it is right to wait for it.
func (s *session) sawOpen() {
	s.closing = false
	for w := s.first; w != nil; w = w.next {
		if w.state == Unseen || w.state == Unopened {
			w.state = Open
		}
	}
}

// close ends the watches over a file that was closed. To those that have not seen it opened it shows at least that PHP
// keeps the session here.
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

// forget leaves the watches of s knowing nothing.
func (s *session) forget() {
	for w := s.first; w != nil; w = w.next {
		if w.state != Unknown && w.state != Closed {
			w.become(Unknown)
			w.changed(Unknown)
		}
	}
}

// become ends the watch's interest in what comes.
func (w *fileWatch) become(s State) {
	w.state = s
	if w.isWanted {
		w.isWanted = false
		w.files.wanted--
	}
}

// State takes in what has come until now.
func (w *fileWatch) State() State {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	w.files.drain()
	return w.state
}

// Asks is false: events come by themselves.
func (w *fileWatch) Asks() bool { return false }

// Want has the events read soon after they come.
func (w *fileWatch) Want() {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	w.files.drain()
	if w.isWanted || w.stopped || w.state == Unknown || w.state == Closed {
		return
	}
	w.isWanted = true
	w.files.wanted++
	select {
	case w.files.hurry <- struct{}{}:
	default: // the reader has been woken already
	}
}

// Destroyed takes in what has come until now: PHP closes the file before it deletes it.
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
