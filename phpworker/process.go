package phpworker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one process of this host. Its descriptors go on meaning that process, whichever process may get its id
// when it has ended.
type process struct {
	pid   int
	pidfd int
	dir   int // of /proc/PID
}

// openProcess opens a process. The caller closes it.
func openProcess(pid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("%w: it takes Linux 5.6 or later", ErrRights)
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(pidfd)
		return nil, os.NewSyscallError("open /proc/PID", err)
	}
	p := &process{pid, pidfd, dir}
	// The directory was opened by number. While the process of pidfd still runs, no other one can have had that number.
	if !p.runs() {
		p.close()
		return nil, ErrGone
	}
	return p, nil
}

func (p *process) close() {
	_ = unix.Close(p.pidfd)
	_ = unix.Close(p.dir)
}

// runs reports whether the process has not ended, or not been waited for by its parent.
func (p *process) runs() bool {
	err := unix.PidfdSendSignal(p.pidfd, 0, nil, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}

// signal sends a signal to the process.
func (p *process) signal(sig unix.Signal) error {
	switch err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: signaling process %d, which is another user's, takes CAP_KILL", ErrRights, p.pid)
	default:
		return os.NewSyscallError("pidfd_send_signal", err)
	}
}

// stopTimeout bounds the wait for a process to stop. One that the kernel does not let go of, as on a disk that does not
// answer, has not run anything meanwhile.
const stopTimeout = 500 * time.Millisecond

// awaitStop returns when the process has stopped.
func (p *process) awaitStop() error {
	until := time.Now().Add(stopTimeout)
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, 2*time.Millisecond) {
		s, err := p.stat()
		if err != nil {
			return err
		}
		switch s.state {
		case 'T':
			return nil
		case 'Z', 'X':
			return ErrGone
		}
		if time.Now().After(until) {
			return fmt.Errorf("%w: process %d is in state %c", ErrBusy, p.pid, s.state)
		}
		time.Sleep(pause)
	}
}

// catches returns nil if the process handles the signal as is meant. SIGPROF would end a process in which PHP has not
// yet begun to count a script's time.
func (p *process) catches(sig unix.Signal) error {
	if sig != unix.SIGPROF {
		return nil
	}
	text, err := p.read("status", 16<<10)
	if err != nil {
		return err
	}
	caught, err := caughtSignals(text)
	if err == nil && caught&(1<<(sig-1)) == 0 {
		err = fmt.Errorf("%w: PHP does not count the time of its script", ErrBusy)
	}
	return err
}

// errNoSignals is returned for a /proc/PID/status without the signals that are caught.
var errNoSignals = errors.New("/proc/PID/status has no SigCgt")

// caughtSignals returns the set of signals that a process has handlers for, from its /proc/PID/status. The mask is
// hexadecimal, and signal n is its bit n-1, as proc(5) has it.
func caughtSignals(status []byte) (uint64, error) {
	const field = "SigCgt:"
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte(field)); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		}
	}
	return 0, errNoSignals
}

// read reads a file of /proc/PID, of at most limit bytes. It reads on until there is no more: such files have no size,
// and may come in pieces.
func (p *process) read(name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, p.explain(name, err)
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 4096)
	for len(text) < limit {
		text = slices.Grow(text, 1)
		n, err := unix.Read(fd, text[len(text):min(cap(text), limit)])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, p.explain(name, err)
		}
		if n == 0 && err == nil {
			break
		}
		text = text[:len(text)+max(n, 0)]
	}
	return text, nil
}

// open opens a file of /proc/PID, which may be a link to any file.
func (p *process) open(name string) (*os.File, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, p.explain(name, err)
	}
	return os.NewFile(uintptr(fd), "/proc/"+strconv.Itoa(p.pid)+"/"+name), nil
}

// readlink reads a link of /proc/PID.
func (p *process) readlink(name string) (string, error) {
	var b [4096]byte
	n, err := unix.Readlinkat(p.dir, name, b[:])
	if err != nil {
		return "", p.explain(name, err)
	}
	return string(b[:n]), nil
}

// explain turns what the kernel says about a file of /proc/PID into the package's errors. Below the directory of a
// process that has ended, all files are ESRCH or ENOENT.
func (p *process) explain(name string, err error) error {
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: reading /proc/%d/%s, which is another user's, takes CAP_SYS_PTRACE", ErrRights, p.pid, name)
	case errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT):
		return ErrGone
	}
	return fmt.Errorf("read /proc/%d/%s: %w", p.pid, name, err)
}

// program returns the path of the program that the process runs, without the kernel's mark on one that was deleted.
func (p *process) program() (string, error) {
	path, err := p.readlink("exe")
	return strings.TrimSuffix(path, deletedMark), err
}

// deletedMark is what the kernel appends to the path of a file that has no name any longer.
const deletedMark = " (deleted)"

// stat is what is needed of /proc/PID/stat.
type stat struct {
	state       byte
	parent      int
	ticks       uint64 // of CPU, in user and in kernel mode
	startedTick uint64
}

func (p *process) stat() (stat, error) {
	text, err := p.read("stat", 4096)
	if err != nil {
		return stat{}, err
	}
	return parseStat(text)
}

// parseStat parses /proc/PID/stat: the name, which may be anything, stands between the first and the last parenthesis.
func parseStat(text []byte) (s stat, err error) {
	end := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[end+1:])
	const first, state, parent, userTime, kernelTime, startTime = 3, 3, 4, 14, 15, 22
	if end < 0 || len(fields) <= startTime-first || len(fields[0]) != 1 {
		return s, errors.New("/proc/PID/stat is cut short")
	}
	number := func(field int) uint64 {
		n, parseErr := strconv.ParseUint(string(fields[field-first]), 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	s.state = fields[state-first][0]
	s.parent = int(number(parent))
	s.ticks = number(userTime) + number(kernelTime)
	s.startedTick = number(startTime)
	return s, err
}

// cpuTime returns the CPU time that the process has used, in nanoseconds.
func (p *process) cpuTime() (int64, bool) {
	var now unix.Timespec
	err := clockGettime(p.cpuClock(), &now)
	return now.Nano(), err == nil
}

// cpuClock is the clock of the process's CPU time, as clock_getcpuclockid(3) has it. Reading the clock of any process
// takes no rights.
func (p *process) cpuClock() int32 {
	const processSched = 2
	return ^int32(p.pid)<<3 | processSched
}

// children returns the ids of the children of a process. The file may leave out a child while another one ends, see
// proc(5). A worker that is missed for that is ErrGone, and found for the next connection.
func children(pid int) ([]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		return parsePIDs(text), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var found []int // by a kernel without that file
	err = eachProcess(func(p *process) bool {
		if s, err := p.stat(); err == nil && s.parent == pid {
			found = append(found, p.pid)
		}
		return true
	})
	return found, err
}

func parsePIDs(text []byte) (pids []int) {
	for _, field := range bytes.Fields(text) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// eachProcess calls yield for all processes that are visible, until it returns false. They are closed after that.
func eachProcess(yield func(*process) bool) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := openProcess(pid)
		if err != nil {
			continue // it has ended
		}
		more := yield(p)
		p.close()
		if !more {
			return nil
		}
	}
	return nil
}

// isChildOf returns nil if the process is the master's child, and runs the same program. It compares the files, not
// their paths: after an upgrade the old processes still run the old file.
func (p *process) isChildOf(master *process) error {
	s, err := p.stat()
	if err != nil {
		return err
	}
	var mine, masters unix.Stat_t
	for _, f := range []struct {
		p  *process
		st *unix.Stat_t
	}{{p, &mine}, {master, &masters}} {
		if err := unix.Fstatat(f.p.dir, "exe", f.st, 0); err != nil {
			return f.p.explain("exe", err)
		}
	}
	if s.parent != master.pid || mine.Dev != masters.Dev || mine.Ino != masters.Ino {
		return fmt.Errorf("%w: process %d, which has the connection, runs another program", ErrProgram, p.pid)
	}
	return nil
}

// matches reports whether a program may be looked at. A pattern with a slash is one of whole paths, and trusts the file
// whoever owns it. A pattern without is one of file names; the file must be root's, and no other user's to write.
func (p *process) matches(patterns []string) (bool, error) {
	path, err := p.program()
	if err != nil {
		return false, err
	}
	for _, pattern := range patterns {
		if strings.Contains(pattern, "/") {
			if ok, _ := filepath.Match(pattern, path); ok {
				return true, nil
			}
			continue
		}
		if ok, _ := filepath.Match(pattern, filepath.Base(path)); ok && p.programIsRoots() {
			return true, nil
		}
	}
	return false, nil
}

// programIsRoots looks at the file itself: exe leads to it even where its path is deleted, or below another root.
func (p *process) programIsRoots() bool {
	var st unix.Stat_t
	const groupAndOthersWrite = 0o022
	return unix.Fstatat(p.dir, "exe", &st, 0) == nil && st.Uid == 0 && st.Mode&groupAndOthersWrite == 0
}
