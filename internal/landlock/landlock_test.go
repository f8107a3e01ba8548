package landlock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// need skips the test where the kernel has no Landlock.
func need(t *testing.T) {
	t.Helper()
	if v, err := Version(); err != nil {
		t.Skipf("this kernel cannot restrict what is opened: %v", err)
	} else {
		t.Logf("Landlock version %d", v)
	}
}

// write makes a file with its folder.
func write(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// deeds are what a process may try with a folder that has a file and a folder in it.
var deeds = map[string]func(folder string) error{
	"read a file":   func(f string) error { _, err := os.ReadFile(filepath.Join(f, "file")); return err },
	"list a folder": func(f string) error { _, err := os.ReadDir(f); return err },
	"write a file":  func(f string) error { return os.WriteFile(filepath.Join(f, "file"), nil, 0o644) },
	"create a file": func(f string) error { return os.WriteFile(filepath.Join(f, "new"), nil, 0o644) },
	"make a folder": func(f string) error { return os.Mkdir(filepath.Join(f, "newer"), 0o755) },
	"run a program": func(f string) error { return exec.Command(filepath.Join(f, "true")).Run() },
	"watch it":      watch,
	"keep a file": func(f string) error {
		next, path := filepath.Join(f, "next"), filepath.Join(f, "kept")
		if err := os.WriteFile(next, nil, 0o600); err != nil {
			return err
		}
		_, err := os.ReadFile(next)
		return errors.Join(err, os.Rename(next, path), os.Remove(path))
	},
	"make and move a socket": func(f string) error {
		made, path := filepath.Join(f, "made.sock"), filepath.Join(f, "sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: made})
		if err != nil {
			return err
		}
		defer l.Close()
		l.SetUnlinkOnClose(false)
		if err := os.Rename(made, path); err != nil {
			return err
		}
		nc, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		return errors.Join(nc.Close(), os.Remove(path))
	},
}

func TestOnlyWhatARuleAllowsCanBeDone(t *testing.T) {
	t.Parallel()
	need(t)
	for name, c := range map[string]struct {
		access Access
		can    []string
	}{
		"read files":   {ReadFiles, []string{"read a file"}},
		"list folders": {ListFolders, []string{"list a folder"}},
		"make sockets": {MakeSockets, []string{"make and move a socket"}},
		"keep files":   {KeepFiles, []string{"read a file", "write a file", "create a file", "keep a file"}},
		"several":      {ReadFiles | ListFolders, []string{"read a file", "list a folder"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			write(t, filepath.Join(folder, "file"))
			if err := rig.CopyProgram("/bin/true", filepath.Join(folder, "true")); err != nil {
				t.Fatal(err)
			}
			can := map[string]bool{"watch it": true} // Landlock leaves inotify alone, by which PHP's sessions are watched
			for _, deed := range c.can {
				can[deed] = true
			}
			for deed, do := range deeds {
				err := Try(Rules{{folder, c.access}}, func() error { return do(folder) })
				switch {
				case can[deed] && err != nil:
					t.Errorf("%s: got %v, want no error", deed, err)
				case !can[deed] && !errors.Is(err, fs.ErrPermission):
					t.Errorf("%s: got %v, want a permission error", deed, err)
				}
			}
		})
	}
}

func TestOnlyTheThreadOfTryIsRestricted(t *testing.T) {
	t.Parallel()
	need(t)
	path := write(t, filepath.Join(t.TempDir(), "file"))
	for range 20 { // on whatever threads there are
		if err := Try(nil, func() error { _, err := os.ReadFile(path); return err }); !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("without a rule: got %v, want a permission error", err)
		}
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that is renamed to another's place, as editors do, is below the same folder still.
func TestAFolderAllowsWhatComesLater(t *testing.T) {
	t.Parallel()
	need(t)
	folder := t.TempDir()
	path := write(t, filepath.Join(folder, "file"))
	err := Try(Rules{{folder, ReadFiles}, {"/nowhere", ReadFiles}, {path, MakeSockets}}, func() error {
		done := make(chan error, 1)
		go func() { done <- os.Rename(write(t, path+".new"), path) }() // by what is not restricted
		if err := <-done; err != nil {
			return err
		}
		_, err := os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBeyond(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	file := write(t, filepath.Join(top, "a", "b", "file"))
	write(t, filepath.Join(top, "ab", "file"))
	link := filepath.Join(top, "link")
	if err := os.Symlink(filepath.Dir(file), link); err != nil {
		t.Fatal(err)
	}
	var granted Rules
	granted.Allow(filepath.Join(top, "a"), ReadFiles)
	granted.Allow(filepath.Join(top, "a", "b"), MakeSockets)
	granted.Allow(filepath.Join(top, "missing"), MakeSockets)
	if len(granted) != 2 {
		t.Errorf("got %d rules, want 2: one of the folders is missing", len(granted))
	}
	for name, c := range map[string]struct {
		path   string
		access Access
		beyond bool
	}{
		"the folder":           {"a", ReadFiles, false},
		"below it":             {"a/b/file", ReadFiles, false},
		"through a link":       {"link/file", ReadFiles, false},
		"by two rules":         {"link", ReadFiles | MakeSockets, false},
		"more than is allowed": {"a", MakeSockets, true},
		"above it":             {".", ReadFiles, true},
		"only a like name":     {"ab", ReadFiles, true},
		"what is not there":    {"nowhere", ReadFiles, false},
	} {
		var needed Rules
		needed.Allow(filepath.Join(top, c.path), c.access)
		if got := len(granted.Beyond(needed)) > 0; got != c.beyond {
			t.Errorf("%s: got beyond %v, want %v", name, got, c.beyond)
		}
	}
	if beyond := (Rules{{"/", ReadFiles}}).Beyond(Rules{{"/etc", ReadFiles}}); beyond != nil {
		t.Errorf("got %v beyond /, want none", beyond)
	}
}

func watch(folder string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, folder, unix.IN_OPEN|unix.IN_CLOSE)
	return err
}

// A process is restricted for good, so this one stands in for it in another process.
func TestRestrictIsForAllThreads(t *testing.T) {
	need(t)
	const helper = "FPM_GATE_LANDLOCK_TEST"
	if os.Getenv(helper) == "" {
		program := filepath.Join(t.TempDir(), "test")
		build := exec.Command("go", "test", "-c", "-o", program, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		again := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), helper+"="+t.TempDir())
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	path := write(t, filepath.Join(os.Getenv(helper), "file"))
	var threads sync.WaitGroup
	restricted := make(chan struct{})
	for range 8 {
		threads.Go(func() {
			runtime.LockOSThread()
			<-restricted
			if _, err := os.ReadFile(path); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want a permission error", err)
			}
		})
	}
	if err := Restrict(nil); err != nil {
		t.Fatal(err)
	}
	close(restricted)
	threads.Wait()
}
