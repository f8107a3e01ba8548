package sessionwatch

import (
	"bytes"
	"encoding/binary"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Files watches the session files of PHP's handler files, in any number of folders, by one inotify instance. It is
// made by NewFiles.
type Files struct {
	report func(folder string, err error)
	fd     int           // the inotify instance
	hurry  chan struct{} // wakes the reader
	end    chan struct{} // ends it
	ended  chan struct{}

	mu      sync.Mutex
	buf     []byte
	dirs    map[int32]*directory // by their watch descriptor
	folders map[folderName]*Folder
	wanted  int // watches that somebody waits for
	closed  bool
}

// directory is a folder that the kernel watches for us, whatever paths lead to it.
type directory struct {
	wd       int32
	users    int                 // leaves
	sessions map[string]*session // by the file's name behind its prefix; only those that are watched
}

// filePrefix is that of PHP's session files.
const filePrefix = "sess_"

// mask selects the inotify events that are needed of a folder.
const mask = unix.IN_OPEN | unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// Events are read now and then: a reader that wakes up for each of them costs more than they do. In a pause the kernel's
// queue, which has room for 16,384 events mostly, must not run over.
const (
	wantedPause = time.Millisecond // while somebody waits for one
	minPause    = 20 * time.Millisecond
	maxPause    = 100 * time.Millisecond // where nothing has come for a while
)

// NewFiles makes a watcher of folders. report is told when a folder cannot be watched, once, and with a nil error when
// it can be again; nil: nobody is told.
func NewFiles(report func(folder string, err error)) (*Files, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, explain("make an inotify instance", "", err)
	}
	if report == nil {
		report = func(string, error) {}
	}
	f := &Files{
		report:  report,
		fd:      fd,
		hurry:   make(chan struct{}, 1),
		end:     make(chan struct{}),
		ended:   make(chan struct{}),
		buf:     make([]byte, 64<<10),
		dirs:    make(map[int32]*directory),
		folders: make(map[folderName]*Folder),
	}
	go f.read()
	return f, nil
}

// Close ends the watching of all folders.
func (f *Files) Close() {
	f.mu.Lock()
	f.closed = true
	f.forgetAll()
	f.mu.Unlock()
	close(f.end)
	<-f.ended
	_ = unix.Close(f.fd)
}

// read reads events until Close.
func (f *Files) read() {
	defer close(f.ended)
	timer := time.NewTimer(minPause)
	defer timer.Stop()
	pause := minPause
	for {
		select {
		case <-timer.C:
		case <-f.hurry:
		case <-f.end:
			return
		}
		f.mu.Lock()
		came, wanted := f.drain(), f.wanted > 0
		f.mu.Unlock()
		switch {
		case wanted:
			pause = wantedPause
		case came > 0:
			pause = minPause
		default:
			pause = min(max(2*pause, minPause), maxPause)
		}
		timer.Reset(pause)
	}
}

// drain takes in all events that have come, and says how many bytes of them. It is called with the mutex held.
func (f *Files) drain() (total int) {
	for !f.closed {
		n := readNow(f.fd, f.buf)
		total += n
		f.take(f.buf[:n])
		if n < len(f.buf)/2 {
			break
		}
	}
	return total
}

// readNow reads what is there. It never blocks, so Go's scheduler need not know of it.
func readNow(fd int, b []byte) int {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// take takes events. Those of sessions that nobody watches end at a look into a map.
func (f *Files) take(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		event := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		name := b[unix.SizeofInotifyEvent:size]
		b = b[size:]
		if event&unix.IN_Q_OVERFLOW != 0 {
			f.forgetAll()
			continue
		}
		d := f.dirs[wd]
		switch {
		case d == nil:
		case event&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
			f.lose(d, event&unix.IN_IGNORED == 0)
		case bytes.HasPrefix(name, []byte(filePrefix)):
			d.take(event, cString(name[len(filePrefix):]))
		}
	}
}

func (d *directory) take(event uint32, name []byte) {
	s := d.sessions[string(name)]
	switch {
	case s == nil:
	case event&unix.IN_OPEN != 0:
		s.sawOpen()
	case event&unix.IN_DELETE != 0:
		s.destroyed = true
	default:
		s.sawClose()
	}
}

// forgetAll is for events that were lost: what has been seen so far is not to be trusted any more.
func (f *Files) forgetAll() {
	for _, d := range f.dirs {
		d.forget()
	}
}

// forget leaves the watches of d knowing nothing. New ones begin afresh.
func (d *directory) forget() {
	for _, s := range d.sessions {
		for w := s.first; w != nil; w = w.next {
			w.become(Unknown)
		}
	}
	d.sessions = make(map[string]*session)
}

// lose is for a folder that its path does not lead to any more. Who asks for that path again gets what is there then.
func (f *Files) lose(d *directory, unwatch bool) {
	d.forget()
	delete(f.dirs, d.wd)
	if unwatch {
		_, _ = unix.InotifyRmWatch(f.fd, uint32(d.wd))
	}
	d.wd = -1
}

// watchPath has the kernel watch a folder. If it does already, by whatever path, that one is returned.
func (f *Files) watchPath(path string) (*directory, error) {
	wd, err := unix.InotifyAddWatch(f.fd, path, mask)
	if err != nil {
		return nil, explain("watch", path, err)
	}
	d := f.dirs[int32(wd)]
	if d == nil {
		d = &directory{wd: int32(wd), sessions: make(map[string]*session)}
		f.dirs[d.wd] = d
	}
	return d, nil
}

// leave ends one use of d, and its watching with the last.
func (f *Files) leave(d *directory) {
	if d == nil {
		return
	}
	if d.users--; d.users == 0 && d.wd >= 0 {
		f.lose(d, true)
	}
}

// cString cuts b where C sees its end.
func cString(b []byte) []byte {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return b[:end]
	}
	return b
}
