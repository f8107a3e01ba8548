package sessionwatch

// session is a session file that is watched. It is guarded by the mutex of Files, as its watches are.
//
// Who opens it and who closes it cannot be told; nor how often, as the kernel makes one event of several that are
// alike. So whatever close comes after an open ends a watch: a script that is out of turn may end that of another too
// early, which does no harm, and none lasts longer than the file is open.
type session struct {
	first     *fileWatch // who watches it
	destroyed bool       // the file has been deleted
}

// fileWatch is one request's watch over a session file.
type fileWatch struct {
	files    *Files
	dir      *directory
	name     string // of the session in dir
	session  *session
	closed   func()
	next     *fileWatch // of the session
	state    State
	isWanted bool
	stopped  bool
}

// watch begins a watch over the session whose file's name ends so.
func (d *directory) watch(f *Files, name []byte, closed func(), state State) *fileWatch {
	s := d.sessions[string(name)]
	w := &fileWatch{files: f, dir: d, closed: closed, state: state}
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

// sawOpen notes that somebody has opened the file. If it was not the script of a watch, but one that is out of turn,
// then PHP lets that one go first, and it is right to wait for it.
func (s *session) sawOpen() {
	for w := s.first; w != nil; w = w.next {
		if w.state == Unopened {
			w.state = Open
		}
	}
}

// sawClose notes that somebody has closed the file.
func (s *session) sawClose() {
	for w := s.first; w != nil; w = w.next {
		if w.state == Open || w.state == Presumed {
			w.become(Closed)
			w.closed()
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
	default: // it has been told already
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
