package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one run of a server: its main process, which leads a process group, and everything that it has forked into
// that group.
type process struct {
	pid    int // of the main process, and of the group
	cmd    *exec.Cmd
	exited chan struct{} // closed when no process of the group is left

	mu   sync.Mutex
	done bool // the main process is reaped, so its id may belong to another process
}

// spawn starts a command with its output appended to a log.
func spawn(c command, dir, logFile string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A rig that is killed, by a test's timeout say, takes its servers with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if c.unprivileged && os.Geteuid() == 0 {
		dropRoot(cmd)
	}
	if err := startOnLastingThread(cmd); err != nil {
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, cmd: cmd, exited: make(chan struct{})}
	go p.reap()
	return p, nil
}

// dropRoot runs a program as an unprivileged user, with the capability to open every file, so that the rig's folder can
// keep its mode.
func dropRoot(cmd *exec.Cmd) {
	const unprivileged = 65534
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: unprivileged, Gid: unprivileged}
	cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_DAC_OVERRIDE}
	cmd.Dir = "/" // it has the capability from exec on, which is too late for the folder
}

// startOnLastingThread starts cmd on a thread that lives as long as the rig's program: Linux sends the parent's death
// signal when the thread that forked ends, and Go may end threads at any time.
func startOnLastingThread(cmd *exec.Cmd) error {
	result := make(chan error)
	lastingThread() <- func() { result <- cmd.Start() }
	return <-result
}

var lastingThread = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// reap waits for the main process and ends the rest of its group. Only then does it collect the exit state: until then
// the ids of the process and its group cannot be reused.
func (p *process) reap() {
	defer close(p.exited)
	waitable(p.pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	syscall.Kill(-p.pid, syscall.SIGKILL)
	for !groupGone(p.pid) {
		time.Sleep(time.Millisecond)
	}
	p.cmd.Wait() // its error is the exit state, which is kept
	p.done = true
}

// waitable returns when a child has ended, without collecting its exit state.
func waitable(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// state returns the exit state. It must not be called before the exit.
func (p *process) state() *os.ProcessState { return p.cmd.ProcessState }

func (p *process) signal(sig syscall.Signal) error { return p.send(p.pid, sig) }

func (p *process) signalGroup(sig syscall.Signal) error { return p.send(-p.pid, sig) }

func (p *process) send(target int, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return ErrNotRunning
	}
	return os.NewSyscallError("kill", syscall.Kill(target, sig))
}

// end signals the main process to end, and kills the group if it does not in time.
func (p *process) end(sig syscall.Signal, timeout time.Duration) error {
	p.signal(sig)                  // an error means that it has ended
	p.signalGroup(syscall.SIGCONT) // a stopped process would not handle the signal
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		p.kill()
		return fmt.Errorf("it did not end within %s of %s and was killed", timeout, unix.SignalName(sig))
	}
}

func (p *process) kill() {
	p.signalGroup(syscall.SIGKILL) // an error means that it has ended
	<-p.exited
}
