package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/supervisor"
)

// A unit's main process only starts the process that serves, and passes signals on to it. systemd begins a restart's
// start when the main process has ended. So at a restart the main process ends at once, and the one that serves ends
// when its requests have, while its successor serves already. See docs/SERVICE.md.

// lifelineVariable names the file descriptor of the socket between the two processes, in the environment of the one
// that serves.
const lifelineVariable = "FPM_GATE_LIFELINE"

// What the main process waits for before it kills a process that does not end: longer than that needs to write the
// stacks of its goroutines, or to drain, and shorter than systemd waits for the main process.
const (
	abortPatience = 5 * time.Second
	drainPatience = 4 * time.Second // after the time to drain, and the grace
)

// supervise is the main process of a unit. The process that it starts may take as long as drain to end.
func supervise(unit string, drain time.Duration) error {
	// It does next to nothing, and for a long time.
	runtime.GOMAXPROCS(1)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP, syscall.SIGABRT)
	child, lifeline, err := startServing()
	if err != nil {
		return failed(err)
	}
	handedOver, ended := make(chan struct{}), make(chan struct{})
	go listenToServing(unit, lifeline, handedOver)
	go func() {
		_ = child.Wait()
		close(ended)
	}()
	for {
		select {
		case sig := <-signals:
			_ = child.Process.Signal(sig)
			_ = child.Process.Signal(syscall.SIGCONT) // as systemd does
			if limit := patience(sig, drain); limit > 0 {
				time.AfterFunc(limit, func() { _ = child.Process.Kill() })
			}
		case <-handedOver:
			return nil
		case <-ended:
			return exitAs(child.ProcessState)
		}
	}
}

// listenToServing passes on to systemd what the process that serves has to report, as systemd listens to the main
// process only, and asks systemd what that process, which may open no program, wants to know of the unit. It closes
// handedOver when that process leaves the unit.
func listenToServing(unit string, lifeline *os.File, handedOver chan<- struct{}) {
	b := make([]byte, 64<<10)
	for {
		n, err := lifeline.Read(b)
		switch {
		case err != nil || n == 0:
			return
		case string(b[:n]) == leaves:
			close(handedOver)
			return
		case string(b[:n]) == asksRestarts:
			_, _ = lifeline.WriteString(restartsText(unit))
		default:
			_, _ = daemon.SdNotify(false, string(b[:n]))
		}
	}
}

// The packets of the process that serves that are not for systemd.
const (
	leaves       = "leaves"
	asksRestarts = "restarts?" // the answer is "yes", "no", or why that is not known
)

// restartsText is the answer to asksRestarts.
func restartsText(unit string) string {
	switch restarts, err := isRestarted(unit); {
	case err != nil:
		return err.Error()
	case restarts:
		return "yes"
	}
	return "no"
}

// patience is how long a process may take to end after a signal; zero: the signal does not end it.
func patience(sig os.Signal, drain time.Duration) time.Duration {
	switch sig {
	case syscall.SIGHUP:
		return 0
	case syscall.SIGABRT:
		return abortPatience
	}
	return drain + supervisor.DrainGrace + drainPatience
}

// exitAs ends the main process as the one that serves has ended. That has logged why.
func exitAs(state *os.ProcessState) error {
	switch code := state.ExitCode(); {
	case code == 0:
		return nil
	case code > 0:
		os.Exit(code)
	}
	return failed(fmt.Errorf("the process that serves has ended: %v", state))
}

// startServing starts the same command as the process that serves. It gets the sockets that systemd has passed, and one
// end of the lifeline. The variables of systemd name this process; joinUnit mends that.
func startServing() (*exec.Cmd, *os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "lifeline"), os.NewFile(uintptr(pair[1]), "lifeline")
	defer theirs.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// They become descriptors 3 and on, in this order: the sockets are where systemd would have put them.
	cmd.ExtraFiles = append(passedFiles(), theirs)
	last := firstPassed + len(cmd.ExtraFiles) - 1
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", lifelineVariable, last))
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the process that serves: %w", err)
	}
	return cmd, mine, nil
}

// firstPassed is the first file descriptor that systemd passes, as sd_listen_fds(3) says.
const firstPassed = 3

// passedFiles are the sockets that systemd has passed to this process.
func passedFiles() (files []*os.File) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for i := range n {
		files = append(files, os.NewFile(uintptr(firstPassed+i), "socket"))
	}
	return files
}

// unit is the process that serves, as a part of a systemd unit.
type unit struct {
	name     string
	lifeline *os.File
	answers  chan string   // of the main process
	orphan   chan struct{} // closed when the main process has ended without being released
	released atomic.Bool
}

// joinUnit makes this process the one that serves of the unit name. It returns nil in the main process.
func joinUnit(name string) (*unit, error) {
	number := os.Getenv(lifelineVariable)
	if number == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(number)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lifelineVariable, err)
	}
	_ = os.Unsetenv(lifelineVariable)
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s: %w", lifelineVariable, err)
	}
	// Libraries take the variables only in the process whose id is there, see sd_listen_fds(3) and
	// sd_watchdog_enabled(3).
	for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID"} {
		if os.Getenv(name) != "" {
			_ = os.Setenv(name, strconv.Itoa(os.Getpid())) // they were the main process's
		}
	}
	return &unit{
		name:     name,
		lifeline: os.NewFile(uintptr(fd), "lifeline"),
		answers:  make(chan string, 1),
		orphan:   make(chan struct{}),
	}, nil
}

// watch passes on what the main process answers. It has this process drain when that ends without it. The read fails,
// or is empty, when the other end was closed: by the kernel if the main process was killed.
func (u *unit) watch(signals chan<- os.Signal) {
	b := make([]byte, 4<<10)
	for {
		n, err := u.lifeline.Read(b)
		if err != nil || n == 0 {
			break
		}
		u.answers <- string(b[:n])
	}
	if !u.released.Load() {
		close(u.orphan)
		signals <- syscall.SIGTERM
	}
}

// Release has the main process end: systemd goes on with what comes after.
func (u *unit) Release() error {
	u.released.Store(true)
	_, err := u.lifeline.Write([]byte(leaves))
	return err
}

// notify has the main process notify systemd.
func (u *unit) notify(state string) error {
	_, err := u.lifeline.Write([]byte(state))
	return err
}

// systemdPatience bounds each request to systemd.
const systemdPatience = time.Second

// Restarts reports whether systemd is going to start the unit again: the main process asks. If that has died, a start
// follows too. It is called once, when the process drains, so an answer that comes too late confuses no other call.
func (u *unit) Restarts() (bool, error) {
	if _, err := u.lifeline.WriteString(asksRestarts); err != nil {
		return true, nil
	}
	select {
	case <-u.orphan:
		return true, nil
	case <-time.After(3 * systemdPatience):
		return false, errors.New("the main process does not answer")
	case answer := <-u.answers:
		switch answer {
		case "yes":
			return true, nil
		case "no":
			return false, nil
		}
		return false, errors.New(answer)
	}
}

// isRestarted reports whether systemd is going to start a unit again. After a mere stop no process comes. Nor does it
// report a restart if systemd would end the process that serves together with the main process. systemd keeps a job of
// type restart until the main process has ended, and then goes on with it as a start.
func isRestarted(unit string) (bool, error) {
	mode, err := systemctl("show", "--property=KillMode", "--value", unit)
	if err != nil {
		return false, err
	}
	if mode := strings.TrimSpace(mode); mode != "process" {
		return false, fmt.Errorf("the unit has KillMode=%s; set KillMode=process", mode)
	}
	jobs, err := systemctl("list-jobs", "--plain", "--no-legend", unit)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(strings.Split(jobs, "\n"), func(line string) bool {
		job := strings.Fields(line) // JOB UNIT TYPE STATE
		return len(job) > 2 && job[1] == unit && job[2] == "restart"
	}), nil
}

// systemctl asks systemd. This is the main process, or it could not: the one that serves is confined and may start no
// program.
func systemctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w", args[0], err)
	}
	return string(out), nil
}
