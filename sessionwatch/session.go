package sessionwatch

// session is a session file that is watched, and what has been seen of it. It is guarded by the mutex of Files, as its
// watches are.
type session struct {
	open  int        // how many have it open, as far as that was seen
	first *fileWatch // who watches it
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
	ahead    int // who have had it open since before the watch, and come first
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
	w.ahead = s.open
	if state == Presumed && s.open == 0 {
		s.open = 1
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

// opened notes that somebody has opened the file. If it was not the script of a watch, but one that is out of turn,
// then PHP lets that one go first, and it is right to wait for it.
func (s *session) opened() {
	s.open++
	for w := s.first; w != nil; w = w.next {
		if w.state == Unopened {
			w.state = Open
		}
	}
}

// closedOne notes that one of those who had it open has closed the file.
func (s *session) closedOne() {
	s.open = max(0, s.open-1)
	for w := s.first; w != nil; w = w.next {
		w.sawClose(s.open)
	}
}

// readerClosed notes that somebody has closed the file who could only read it: a backup, say. PHP opens it for writing,
// even to read_and_close it. If it was nobody but him, the session has not been opened yet.
func (s *session) readerClosed() {
	s.open = max(0, s.open-1)
	for w := s.first; w != nil; w = w.next {
		if w.state == Open && s.open == 0 {
			w.state = Unopened
		}
		w.ahead = min(w.ahead, s.open)
	}
}

// sawClose judges whose close that was. Those who had the file open before are let go by PHP before the script of w;
// with nobody left, it was that one's in any case.
func (w *fileWatch) sawClose(left int) {
	others := w.ahead > 0
	if others {
		w.ahead--
	}
	if w.state == Unopened || w.state == Unknown || w.state == Closed || others && left > 0 {
		return
	}
	w.become(Closed)
	w.closed()
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
