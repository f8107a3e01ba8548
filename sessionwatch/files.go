package sessionwatch

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Files watches the session files of PHP's handler files, in any number of folders, with one inotify instance. Create
// it with NewFiles.
type Files struct {
	report func(folder string, err error)
	init   func() (int, error) // inotify, except in tests
	wake   chan struct{}       // wakes the reader
	end    chan struct{}       // ends it
	ended  chan struct{}

	mu      sync.Mutex
	fd      int // the inotify instance; -1: not created so far
	buf     []byte
	closing []*session // sessions whose close is in the current read
	seen    sightings
	dirs    map[int32]*directory // by their watch descriptor
	folders map[folderName]*Folder
	wanted  int // watches for which a request waits
	closed  bool
}

// directory is a folder that the kernel watches for us, by whatever paths.
type directory struct {
	wd       int32
	seed     maphash.Seed        // of the hashes of its sessions
	users    int                 // the leaves that use it
	sessions map[string]*session // the watched ones, by the file's name without its prefix
}

// filePrefix starts the names of PHP's session files.
const filePrefix = "sess_"

// mask selects the inotify events we need. PHP always opens a session file for writing. A close without write access is
// that of a backup or a scanner, so it is not in the mask.
const mask = unix.IN_OPEN | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF |
	unix.IN_ONLYDIR

// Events are read in batches: waking up for each of them would cost more than the events do. The pauses must not let
// the kernel's queue overflow, which usually has room for 16,384 events.
const (
	wantedPause = time.Millisecond // while a request waits for an event
	minPause    = 20 * time.Millisecond
	maxPause    = 100 * time.Millisecond // after a while without events
)

// NewFiles returns a watcher without folders. report is called once when a folder cannot be watched, and with a nil
// error once it can be again; it may be nil. The inotify instance is created with the first folder.
func NewFiles(report func(folder string, err error)) *Files {
	if report == nil {
		report = func(string, error) {}
	}
	f := &Files{
		report:  report,
		init:    inotify,
		fd:      -1,
		wake:    make(chan struct{}, 1),
		end:     make(chan struct{}),
		ended:   make(chan struct{}),
		buf:     make([]byte, 64<<10),
		dirs:    make(map[int32]*directory),
		folders: make(map[folderName]*Folder),
	}
	go f.read()
	return f
}

// open creates the inotify instance if there is none. The caller must hold the mutex.
func (f *Files) open() error {
	if f.fd >= 0 {
		return nil
	}
	fd, err := f.init()
	if err != nil {
		return explain("create an inotify instance", "", err)
	}
	f.fd = fd
	return nil
}

func inotify() (int, error) { return unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC) }

// Close ends the watching of all folders.
func (f *Files) Close() {
	f.mu.Lock()
	f.closed = true
	f.forgetAll()
	f.mu.Unlock()
	close(f.end)
	<-f.ended
	if f.fd >= 0 {
		_ = unix.Close(f.fd)
	}
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
		case <-f.wake:
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

// drain processes all events that have arrived, and returns their size in bytes. The caller must hold the mutex.
func (f *Files) drain() (total int) {
	defer f.settle()
	for !f.closed && f.fd >= 0 {
		n := readNow(f.fd, f.buf)
		total += n
		f.take(f.buf[:n])
		if n < len(f.buf)/2 {
			break
		}
	}
	return total
}

// settle ends the watches over files that were closed, and not opened again, in the events just read.
func (f *Files) settle() {
	for _, s := range f.closing {
		if s.closing {
			s.close()
		}
	}
	f.closing = f.closing[:0]
}

// readNow reads without blocking, so Go's scheduler need not know of the system call.
func readNow(fd int, b []byte) int {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// take processes events. An event of a session without a watch costs one map lookup.
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
			f.takeOf(d, event, cString(name[len(filePrefix):]))
		}
	}
}

// takeOf processes an event of a session's file: it was deleted, opened or closed.
func (f *Files) takeOf(d *directory, event uint32, name []byte) {
	s := d.sessions[string(name)]
	if event&unix.IN_DELETE != 0 {
		if s != nil {
			s.destroyed = true
		}
		return
	}
	open := event&unix.IN_OPEN != 0
	f.seen.note(maphash.Bytes(d.seed, name), open)
	switch {
	case s == nil:
	case open:
		s.sawOpen()
	case !s.closing:
		s.closing = true
		f.closing = append(f.closing, s)
	}
}

// forgetAll is called when events were lost: what has been seen so far can no longer be trusted.
func (f *Files) forgetAll() {
	f.seen.forget()
	for _, d := range f.dirs {
		d.forget()
	}
}

// forget makes the watches of d Unknown. New watches start afresh.
func (d *directory) forget() {
	for _, s := range d.sessions {
		s.forget()
	}
	d.sessions = make(map[string]*session)
}

// lose ends the watching of a folder that its path no longer leads to, or that is no longer used. The next watch of
// that path finds what is there then.
func (f *Files) lose(d *directory, unwatch bool) {
	d.forget()
	delete(f.dirs, d.wd)
	if unwatch {
		_, _ = unix.InotifyRmWatch(f.fd, uint32(d.wd))
	}
	d.wd = -1
}

// watchPath makes the kernel watch a folder. If it does already, by whatever path, watchPath returns that directory.
func (f *Files) watchPath(path string) (*directory, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	wd, err := unix.InotifyAddWatch(f.fd, path, mask)
	if err != nil {
		return nil, explain("watch", path, err)
	}
	d := f.dirs[int32(wd)]
	if d == nil {
		d = &directory{wd: int32(wd), seed: maphash.MakeSeed(), sessions: make(map[string]*session)}
		f.dirs[d.wd] = d
	}
	return d, nil
}

// leave ends one use of d, and the watching with the last.
func (f *Files) leave(d *directory) {
	if d == nil {
		return
	}
	if d.users--; d.users == 0 && d.wd >= 0 {
		f.lose(d, true)
	}
}

// cString returns b up to its first NUL, where a C string ends.
func cString(b []byte) []byte {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return b[:end]
	}
	return b
}
