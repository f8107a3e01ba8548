package phpworker

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDescriptor bounds the descriptors that are looked at. PHP-FPM's accepted connection has the lowest number that was
// free when its worker became idle, which is a small one.
const maxDescriptor = 64

// hasSocket reports whether descriptor n of the process is the socket with that inode. False is also said of a process
// that has ended.
func (p *process) hasSocket(n int, inode uint32) (bool, error) {
	var b [64]byte
	length, err := unix.Readlinkat(p.dir, "fd/"+strconv.Itoa(n), b[:])
	switch {
	case err == nil:
		return string(b[:length]) == "socket:["+strconv.FormatUint(uint64(inode), 10)+"]", nil
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
		return false, nil
	case !errors.Is(err, unix.EACCES):
		return false, p.explain("fd", err)
	}
	// The folder is root's where the process has changed its user, and CAP_SYS_PTRACE alone does not open it. It takes a
	// copy of the descriptor then, for as short as can be.
	var found bool
	err = p.borrow(n, func(fd int) {
		var st unix.Stat_t
		found = unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && uint32(st.Ino) == inode
	})
	if errors.Is(err, unix.EBADF) || errors.Is(err, ErrGone) {
		return false, nil
	}
	return found, err
}

// borrow calls use with a copy of descriptor n of the process, and closes it at once. The error is unix.EBADF where the
// process has no such descriptor. The kernel lets a process copy what it may also trace, see pidfd_getfd(2). As long as
// there is a copy, a close in PHP-FPM does not end the connection.
func (p *process) borrow(n int, use func(fd int)) error {
	fd, err := unix.PidfdGetfd(p.pidfd, n, 0)
	switch {
	case err == nil:
		use(fd)
		_ = unix.Close(fd)
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: looking at the descriptors of process %d takes CAP_SYS_PTRACE, and the system call "+
			"pidfd_getfd, which seccomp may forbid", ErrRights, p.pid)
	case errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: it takes Linux 5.6 or later", ErrRights)
	}
	return os.NewSyscallError("pidfd_getfd", err)
}

// findSocket returns the number of the descriptor that is the socket with that inode, or -1.
func (p *process) findSocket(inode uint32) (int, error) {
	for n := range maxDescriptor {
		if ok, err := p.hasSocket(n, inode); ok || err != nil {
			return n, err
		}
	}
	return -1, nil
}
