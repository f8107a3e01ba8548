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

// Folder is a Watcher of the session files in one folder, or at some depth below it. It is made by Files.Folder.
type Folder struct {
	files *Files
	name  folderName

	// Guarded by the mutex of files.
	users  int
	leaves map[string]*leaf // by the begin of the session ids in it; only those that could be watched
	err    error            // why the last attempt failed
}

var _ Watcher = (*Folder)(nil)

// folderName is a save_path of PHP's handler files.
type folderName struct {
	path  string
	depth int
}

// leaf is a folder that has session files in it, and sessions of one begin.
type leaf struct {
	dir    *directory
	looked time.Time // when its path was seen to lead to dir
}

// lookAgain is how long a path is believed to lead to the same folder: a parent that is replaced is told by nobody.
const lookAgain = time.Second

// Folder watches a folder, from now on until Close. With a depth the session files are so many folders below it, as in
// PHP's save_path "2;/path". A folder that cannot be watched yet is tried again with each Watch.
func (f *Files) Folder(path string, depth int) *Folder {
	f.mu.Lock()
	name := folderName{filepath.Clean(path), depth}
	d := f.folders[name]
	if d == nil {
		d = &Folder{files: f, name: name, leaves: make(map[string]*leaf)}
		f.folders[name] = d
	}
	d.users++
	var tell func()
	if depth == 0 {
		_, tell = d.leaf(nil) // so that what is wrong is told at once
	}
	f.mu.Unlock()
	tellIfAny(tell)
	return d
}

// Close ends one use of the folder, and its watching with the last.
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

// Place is the folder.
func (d *Folder) Place() string { return d.name.path }

// Watch watches the session file of id.
func (d *Folder) Watch(id []byte, changed func(State)) Watch { return d.watch(id, changed, unopened) }

// WatchOpen watches the session file of id, which PHP should have open.
func (d *Folder) WatchOpen(id []byte, changed func(State)) Watch { return d.watch(id, changed, opened) }

func (d *Folder) watch(id []byte, changed func(State), begin func(sighting) State) Watch {
	w, tell := d.add(id, changed, begin)
	tellIfAny(tell)
	return w
}

// unopened is the state in which the watch of a request begins, after what was seen of its session before.
func unopened(before sighting) State {
	if before&sawUse != 0 {
		return Unopened
	}
	return Unseen
}

// opened is the state in which the watch of a session begins that PHP should have opened.
func opened(before sighting) State {
	switch {
	case before&sawOpen != 0:
		return Open
	case before&sawUse != 0:
		return Closed
	}
	return Presumed
}

// add begins a watch. What has come before belongs to others, and is taken in first.
func (d *Folder) add(id []byte, changed func(State), begin func(sighting) State) (w Watch, tell func()) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	d.files.drain()
	dir, tell := d.leaf(id)
	if dir == nil {
		return nothing{}, tell
	}
	d.files.seen.turn(time.Now())
	name := cString(id)
	return dir.watch(d.files, name, changed, begin(d.files.seen.look(maphash.Bytes(dir.seed, name)))), tell
}

// leaf returns the folder that has the session file of id in it, nil if that cannot be watched; and what is to be told
// of it once the mutex is free. It is called with the mutex held.
func (d *Folder) leaf(id []byte) (*directory, func()) {
	if len(id) < d.name.depth || d.files.closed {
		return nil, nil
	}
	begin := id[:d.name.depth]
	l := d.leaves[string(begin)]
	if l != nil && l.dir.wd >= 0 && time.Since(l.looked) < lookAgain {
		return l.dir, nil
	}
	dir, err := d.files.watchPath(d.pathOf(begin))
	if err != nil {
		if l != nil {
			d.files.leave(l.dir)
			delete(d.leaves, string(begin))
		}
		return nil, d.failed(err)
	}
	if l == nil {
		l = new(leaf)
		d.leaves[string(begin)] = l
	}
	if l.dir != dir {
		dir.users++
		d.files.leave(l.dir)
	}
	l.dir, l.looked = dir, time.Now()
	return dir, d.works()
}

// pathOf is the folder of the sessions that begin so: each level is named after one character.
func (d *Folder) pathOf(begin []byte) string {
	var b strings.Builder
	b.WriteString(d.name.path)
	for _, c := range begin {
		b.WriteByte('/')
		b.WriteByte(c)
	}
	return b.String()
}

// failed notes that a folder cannot be watched. One that is missing below a folder that is there is PHP's trouble, and
// nothing to tell: visitors choose the begin of an id.
func (d *Folder) failed(err error) (tell func()) {
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
func (d *Folder) works() (tell func()) {
	if d.err == nil {
		return nil
	}
	d.err = nil
	return func() { d.files.report(d.name.path, nil) }
}

func tellIfAny(tell func()) {
	if tell != nil {
		tell()
	}
}

// CheckFolder says whether this process may watch a folder with session files at that depth; if not, why, and what it
// takes. Below a folder it looks at one leaf.
func CheckFolder(path string, depth int) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return explain("make an inotify instance", "", err)
	}
	defer unix.Close(fd)
	for range depth {
		below, err := os.ReadDir(path)
		if err != nil {
			return explain("look for the folders of sessions in", path, err)
		}
		next := ""
		for _, e := range below {
			if e.IsDir() && len(e.Name()) == 1 {
				next = e.Name()
				break
			}
		}
		if next == "" {
			return fmt.Errorf("watch %s: there are no folders of sessions in it; depth %d needs them, and PHP does not make them", path, depth)
		}
		path = filepath.Join(path, next)
	}
	if _, err := unix.InotifyAddWatch(fd, path, mask); err != nil {
		return explain("watch", path, err)
	}
	return nil
}

// explain says what an error of inotify means for who has to do something about it.
func explain(step, path string, err error) error {
	if path != "" {
		step += " " + path
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EACCES):
		hint = ": it takes the right to read the folder" + accessOf(path)
	case errors.Is(err, unix.ENOSPC):
		hint = ": fs.inotify.max_user_watches is reached"
	case errors.Is(err, unix.EMFILE):
		hint = ": fs.inotify.max_user_instances is reached, or the limit of open files"
	}
	return fmt.Errorf("%s: %w%s", step, err, hint)
}

// accessOf tells mode and owner of a folder, as far as they can be seen.
func accessOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf(", which has mode %04o, owner %d and group %d", st.Mode&0o7777, st.Uid, st.Gid)
}
