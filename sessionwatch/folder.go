package sessionwatch

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is a Watcher of the session files in a folder, or at some depth below it. Create it with Files.Folder.
type Folder struct {
	files *Files
	name  folderName

	// Guarded by the mutex of files.
	users  int
	leaves map[string]*leaf // the watched ones, by the prefix of the session ids in them
	err    error            // why the last attempt failed
}

var _ Watcher = (*Folder)(nil)

// folderName is a save_path of PHP's handler files.
type folderName struct {
	path  string
	depth int
}

// leaf is a folder with session files, whose ids have the same prefix.
type leaf struct {
	dir    *directory
	looked time.Time // when its path last led to dir
}

// lookAgain is how long a path is assumed to lead to the same folder: inotify does not report a replaced parent.
const lookAgain = time.Second

// Folder returns a watcher of a folder, to be closed by the caller. With a depth, the session files are that many
// levels below the folder, as with PHP's save_path "2;/path". If the folder cannot be watched yet, each Watch tries
// again.
func (f *Files) Folder(path string, depth int) *Folder {
	f.mu.Lock()
	name := folderName{filepath.Clean(path), depth}
	d := f.folders[name]
	if d == nil {
		d = &Folder{files: f, name: name, leaves: make(map[string]*leaf)}
		f.folders[name] = d
	}
	d.users++
	var notify func()
	if depth == 0 {
		_, notify = d.leaf(nil) // so that a problem is reported at once
	}
	f.mu.Unlock()
	callIfAny(notify)
	return d
}

// Close ends one use of the folder, and the watching with the last.
func (d *Folder) Close() {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	if d.users--; d.users > 0 || d.files.closed {
		return
	}
	for _, l := range d.leaves {
		d.files.leave(l.dir)
	}
	delete(d.files.folders, d.name)
}

// Place returns the folder's path.
func (d *Folder) Place() string { return d.name.path }

// Watch watches the session file of id.
func (d *Folder) Watch(id []byte, changed func(State)) Watch { return d.watch(id, changed, unopened) }

// WatchOpen watches the session file of id, which PHP should have open.
func (d *Folder) WatchOpen(id []byte, changed func(State)) Watch { return d.watch(id, changed, opened) }

func (d *Folder) watch(id []byte, changed func(State), start func(sighting) State) Watch {
	w, notify := d.add(id, changed, start)
	callIfAny(notify)
	return w
}

// unopened returns the first state of a request's watch, given what was seen of its session before.
func unopened(before sighting) State {
	if before&sawUse != 0 {
		return Unopened
	}
	return Unseen
}

// opened returns the first state of the watch of a session that PHP should have opened.
func opened(before sighting) State {
	switch {
	case before&sawOpen != 0:
		return Open
	case before&sawUse != 0:
		return Closed
	}
	return Presumed
}

// add starts a watch. It first processes the events that have arrived, which belong to earlier requests.
func (d *Folder) add(id []byte, changed func(State), start func(sighting) State) (w Watch, notify func()) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	d.files.drain()
	dir, notify := d.leaf(id)
	if dir == nil {
		return nothing{}, notify
	}
	d.files.seen.turn(time.Now())
	name := cString(id)
	seen := d.files.seen.look(maphash.Bytes(dir.seed, name))
	return dir.watch(d.files, name, changed, start(seen)), notify
}

// leaf returns the folder with the session file of id, nil if it cannot be watched; and a function that reports a
// change of that, to be called without the mutex. The caller must hold the mutex.
func (d *Folder) leaf(id []byte) (*directory, func()) {
	if len(id) < d.name.depth || d.files.closed {
		return nil, nil
	}
	prefix := id[:d.name.depth]
	l := d.leaves[string(prefix)]
	if l != nil && l.dir.wd >= 0 && time.Since(l.looked) < lookAgain {
		return l.dir, nil
	}
	dir, err := d.files.watchPath(d.pathOf(prefix))
	if err != nil {
		if l != nil {
			d.files.leave(l.dir)
			delete(d.leaves, string(prefix))
		}
		return nil, d.failed(err)
	}
	if l == nil {
		l = new(leaf)
		d.leaves[string(prefix)] = l
	}
	if l.dir != dir {
		dir.users++
		d.files.leave(l.dir)
	}
	l.dir, l.looked = dir, time.Now()
	return dir, d.works()
}

// pathOf returns the folder of the sessions with that prefix: each level is named after one character.
func (d *Folder) pathOf(prefix []byte) string {
	var b strings.Builder
	b.WriteString(d.name.path)
	for _, c := range prefix {
		b.WriteByte('/')
		b.WriteByte(c)
	}
	return b.String()
}

// failed notes that a folder cannot be watched. It does not report a missing level below an existing folder: visitors
// choose the first characters of an id, and PHP has no session there either.
func (d *Folder) failed(err error) (notify func()) {
	if d.name.depth > 0 && errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Stat(d.name.path); missing == nil {
			return nil
		}
	}
	first := d.err == nil
	d.err = err
	if !first {
		return nil
	}
	return func() { d.files.report(d.name.path, err) }
}

// works notes that a folder is watched.
func (d *Folder) works() (notify func()) {
	if d.err == nil {
		return nil
	}
	d.err = nil
	return func() { d.files.report(d.name.path, nil) }
}

func callIfAny(f func()) {
	if f != nil {
		f()
	}
}

// CheckFolder returns nil if this process can watch a folder with session files at that depth. Else the error says why
// not, and what to do. Of the folders at that depth it tries only one.
func CheckFolder(path string, depth int) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return explain("create an inotify instance", "", err)
	}
	defer unix.Close(fd)
	for range depth {
		below, err := os.ReadDir(path)
		if err != nil {
			return explain("read folder", path, err)
		}
		next := ""
		for _, e := range below {
			if e.IsDir() && len(e.Name()) == 1 {
				next = e.Name()
				break
			}
		}
		if next == "" {
			return fmt.Errorf("watch %s: no session folders in it; depth %d needs them, and PHP does not create them",
				path, depth)
		}
		path = filepath.Join(path, next)
	}
	if _, err := unix.InotifyAddWatch(fd, path, mask); err != nil {
		return explain("watch", path, err)
	}
	return nil
}

// explain adds to an error of inotify what an operator can do about it.
func explain(step, path string, err error) error {
	if path != "" {
		step += " " + path
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EACCES):
		hint = ": the process needs permission to read the folder" + accessOf(path)
	case errors.Is(err, unix.ENOSPC):
		hint = ": raise fs.inotify.max_user_watches"
	case errors.Is(err, unix.EMFILE):
		hint = ": raise fs.inotify.max_user_instances, or the limit of open files"
	}
	return fmt.Errorf("%s: %w%s", step, err, hint)
}

// accessOf describes the mode and owner of a folder, if they can be read.
func accessOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf(", which has mode %04o, owner %d and group %d", st.Mode&0o7777, st.Uid, st.Gid)
}
