// Package landlock restricts what files this process may open, by the kernel's Landlock (landlock(7)). A restriction is
// for the rest of the process's life, and can be made narrower but never wider.
//
// Landlock judges what is opened, listed, created and removed. Files that are open already, and connections to unix
// sockets, are not its business. A restricted process may not trace others, so it cannot look into PHP-FPM's workers.
// What the rules of fpm-gate are is left to cmd/fpm-gate.
package landlock

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what a rule allows, or several of that.
type Access uint64

// What can be allowed.
const (
	ReadFiles   Access = unix.LANDLOCK_ACCESS_FS_READ_FILE
	ListFolders Access = unix.LANDLOCK_ACCESS_FS_READ_DIR
	// MakeSockets is to create unix sockets, to rename them within their folder, and to remove them.
	MakeSockets Access = unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	// KeepFiles is to make files, to read, write and rename them within their folder, and to remove them.
	KeepFiles Access = ReadFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
)

// Rule allows something to be done with a file, or with all that is below a folder. Another file system that is mounted
// there belongs to it. It is for the file or folder that is at the path now: not for another one that replaces it.
type Rule struct {
	Path   string // absolute, without symbolic links
	Access Access
}

// Rules are all that a process may do. None: nothing.
type Rules []Rule

// Allow adds a rule for what a path leads to. It adds none if that is nothing, or out of reach.
func (r *Rules) Allow(path string, a Access) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		*r = append(*r, Rule{real, a})
	}
}

// Beyond returns those of the needed rules that r does not allow.
func (r Rules) Beyond(needed Rules) (beyond Rules) {
	for _, n := range needed {
		if r.allowed(n.Path)&n.Access != n.Access {
			beyond = append(beyond, n)
		}
	}
	return beyond
}

// allowed returns what may be done with what is at path.
func (r Rules) allowed(path string) (a Access) {
	for _, rule := range r {
		if path == rule.Path || strings.HasPrefix(path, strings.TrimSuffix(rule.Path, "/")+"/") {
			a |= rule.Access
		}
	}
	return a
}

// Version returns the version of the kernel's Landlock, 1 or more. An error says why the process cannot use it: the
// kernel has none, it was not enabled when the machine started, or system calls are filtered.
func Version() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("ask the kernel for Landlock: %w", errno)
	}
	return int(v), nil
}

// ErrCgo is returned by Restrict in a program with C in it: the Go runtime does not know all of its threads.
var ErrCgo = errors.New("the program was built with cgo, without which Landlock reaches all of its threads")

// Restrict restricts the whole process. After an error it is as it was, but that it gains no privileges by executing
// other programs.
func Restrict(rules Rules) error {
	ruleset, err := newRuleset(rules)
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	const prctl = unix.SYS_PRCTL
	if _, _, errno := syscall.AllThreadsSyscall6(prctl, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return asError("set no_new_privs", errno)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
	return asError("restrict the process", errno)
}

// asError returns nil if errno is 0.
func asError(step string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP: // of AllThreadsSyscall
		return ErrCgo
	}
	return fmt.Errorf("%s: %w", step, errno)
}

// Try calls f on a thread of its own that the rules restrict, and returns its error. The rest of the process stays as
// it is. What f leaves to other goroutines is not restricted.
func Try(rules Rules, f func() error) error {
	ruleset, err := newRuleset(rules)
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it is never unlocked, so the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- fmt.Errorf("set no_new_privs: %w", err)
			return
		}
		if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
			done <- fmt.Errorf("restrict a thread: %w", errno)
			return
		}
		done <- f()
	}()
	return <-done
}

// newRuleset returns a file descriptor of the rules.
func newRuleset(rules Rules) (int, error) {
	version, err := Version()
	if err != nil {
		return -1, err
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: uint64(handled(version))}
	const size = unsafe.Sizeof(attr.Handled_access_fs) // of version 1; later ones have more
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("create a ruleset: %w", errno)
	}
	for _, r := range rules {
		r.Access &= handled(version)
		if err := r.addTo(int(fd)); err != nil {
			_ = unix.Close(int(fd))
			return -1, fmt.Errorf("rule for %s: %w", r.Path, err)
		}
	}
	return int(fd), nil
}

// handled are the accesses that are denied unless a rule allows them: all that a version of Landlock knows up to 5, the
// last one that concerns files. Version 9 judges connections to unix sockets, too; it is not asked to.
func handled(version int) Access {
	all := Access(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1) // of version 1
	if version >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

func (r Rule) addTo(ruleset int) error {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // there is nothing to allow
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := unix.LandlockPathBeneathAttr{Allowed_access: uint64(r.Access), Parent_fd: int32(fd)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		attr.Allowed_access = uint64(ReadFiles) // the kernel refuses what can be done with folders only
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
