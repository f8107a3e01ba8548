package sessionwatch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// reports collects the reports of folders.
type reports struct {
	mu  sync.Mutex
	all []string
}

func (r *reports) add(folder string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := filepath.Base(folder) + " works"
	if err != nil {
		text = err.Error()
	}
	r.all = append(r.all, text)
}

// want fails unless the reports so far have these texts in them, one each.
func (r *reports) want(t *testing.T, texts ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) != len(texts) {
		t.Fatalf("got reports %q, want %q", r.all, texts)
	}
	for i, text := range texts {
		if !strings.Contains(r.all[i], text) {
			t.Errorf("report %d: got %q, want it to say %q", i, r.all[i], text)
		}
	}
}

func TestAFolderThatAppearsLaterIsWatchedThen(t *testing.T) {
	reported := new(reports)
	dir := filepath.Join(t.TempDir(), "sessions")
	f := newFiles(t, reported.add).Folder(dir, 0)
	for range 3 {
		watch(f, "a").want(t, Unknown)
	}
	reported.want(t, "no such file or directory")
	mkdir(t, dir)
	seesASession(t, f, dir, "a")
	reported.want(t, "no such file", "sessions works")
}

// seesASession fails unless f sees a session in dir.
func seesASession(t *testing.T, f *Folder, dir, id string) {
	t.Helper()
	php := scriptOf(t, dir, id)
	w := watch(f, id)
	defer w.Stop()
	w.want(t, Unseen)
	php.open()
	w.want(t, Open)
	php.close()
	w.want(t, Closed)
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestAFolderThatIsReplacedIsFollowed(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "sessions")
			mkdir(t, dir)
			f := newFiles(t, nil).Folder(dir, 0)
			old := watch(f, "a")
			old.want(t, Unseen)
			if err := remove(dir); err != nil {
				t.Fatal(err)
			}
			old.want(t, Unknown)
			watch(f, "a").want(t, Unknown)
			mkdir(t, dir)
			seesASession(t, f, dir, "a")
			old.Stop()
		})
	}
}

func TestAFolderWhoseParentIsReplacedIsFollowed(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "php")
	dir := filepath.Join(parent, "sessions")
	mkdir(t, dir)
	f := newFiles(t, nil).Folder(dir, 0)
	seesASession(t, f, dir, "a")
	if err := os.Rename(parent, parent+".old"); err != nil {
		t.Fatal(err)
	}
	mkdir(t, dir)
	f.files.mu.Lock()
	f.leaves[""].looked = f.leaves[""].looked.Add(-lookAgain)
	f.files.mu.Unlock()
	seesASession(t, f, dir, "a")
}

func TestSessionsLieSoManyFoldersBelow(t *testing.T) {
	reported := new(reports)
	dir := t.TempDir()
	f := newFiles(t, reported.add).Folder(dir, 2)
	watch(f, "ab1").want(t, Unknown) // PHP has no folder for it either
	watch(f, "a").want(t, Unknown)   // nor a file for so short an id
	mkdir(t, filepath.Join(dir, "a", "b"))
	mkdir(t, filepath.Join(dir, "B", "a"))
	seesASession(t, f, filepath.Join(dir, "a", "b"), "ab1")
	seesASession(t, f, filepath.Join(dir, "B", "a"), "Ba1")
	reported.want(t)
}

func TestOneFolderIsWatchedOnce(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	files := newFiles(t, nil)
	one, same, linked := files.Folder(dir, 0), files.Folder(dir+"/", 0), files.Folder(link, 0)
	if one != same {
		t.Error("one path has made two folders")
	}
	if got := len(files.dirs); got != 1 {
		t.Errorf("the kernel watches %d folders, want 1", got)
	}
	one.Close()
	seesASession(t, same, dir, "a")
	same.Close()
	seesASession(t, linked, dir, "b")
	w := watch(linked, "b")
	linked.Close()
	w.want(t, Unknown)
	if len(files.dirs)+len(files.folders) != 0 {
		t.Errorf("after the last use %d folders are left", len(files.dirs)+len(files.folders))
	}
}

func TestAClosedWatcherKnowsNothing(t *testing.T) {
	files := NewFiles(nil)
	f := files.Folder(t.TempDir(), 0)
	w := watch(f, "a")
	files.Close()
	w.want(t, Unknown)
	w.Prioritize()
	w.Stop()
	watch(f, "a").want(t, Unknown)
	f.Close()
}

// TestAFolderThatMayNotBeRead is done as an ordinary user, with the mode of Debian's /var/lib/php/sessions.
func TestAFolderThatMayNotBeRead(t *testing.T) {
	if dir := os.Getenv("SESSIONWATCH_FOLDER"); dir != "" {
		reported := new(reports)
		watch(newFiles(t, reported.add).Folder(dir, 0), "a").want(t, Unknown)
		reported.want(t, "permission denied: the process needs permission to read the folder, which has mode 1")
		if err := CheckFolder(dir, 0); err == nil || !strings.Contains(err.Error(), "the process needs permission to read the folder") {
			t.Errorf("check: got %v", err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "sessionwatch-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mode := os.FileMode(0o733) | os.ModeSticky
	cmd := exec.Command(copyOfTest(t, dir), "-test.run", "^TestAFolderThatMayNotBeRead$", "-test.count=1")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else {
		mode = 0o333 | os.ModeSticky // it is our own
	}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "SESSIONWATCH_FOLDER="+dir)
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// copyOfTest is the test's own program, where other users may run it.
func copyOfTest(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "test")
	if err := rig.CopyProgram(self, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckLooksAtALeaf(t *testing.T) {
	dir := t.TempDir()
	if err := CheckFolder(dir, 0); err != nil {
		t.Error(err)
	}
	if err := CheckFolder(dir, 1); err == nil || !strings.Contains(err.Error(), "no session folders in it") {
		t.Errorf("depth without folders: got %v", err)
	}
	mkdir(t, filepath.Join(dir, "a", "b"))
	if err := CheckFolder(dir, 2); err != nil {
		t.Error(err)
	}
	if err := CheckFolder(filepath.Join(dir, "missing"), 0); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing folder: got %v", err)
	}
}

// Where inotify instances are used up, the first one that becomes free is taken.
func TestAnInstanceOfInotifyIsTriedAgain(t *testing.T) {
	reported := new(reports)
	dir := t.TempDir()
	files := newFiles(t, reported.add)
	inits := 0
	files.init = func() (int, error) {
		if inits++; inits < 3 {
			return -1, unix.EMFILE
		}
		return inotify()
	}
	f := files.Folder(dir, 0)
	watch(f, "a").want(t, Unknown)
	reported.want(t, "raise fs.inotify.max_user_instances")
	seesASession(t, f, dir, "a")
	reported.want(t, "max_user_instances", filepath.Base(dir)+" works")
}
