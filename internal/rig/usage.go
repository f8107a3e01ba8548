package rig

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pids returns the process ids of all processes of the server, its main process first. It is empty for a server that
// does not run.
func (s *Server) Pids() []int {
	run := s.current()
	if run == nil || run.hasExited() {
		return nil
	}
	pids := []int{run.pid}
	for _, m := range group(run.pid) {
		if m.pid != run.pid && !m.gone {
			pids = append(pids, m.pid)
		}
	}
	return pids
}

// CPU returns the CPU time, user and system, that the server's present processes have used so far.
func (s *Server) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range s.Pids() {
		used, err := processCPU(pid)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of %s: %w", s.Name, err)
		}
		sum += used
	}
	return sum, nil
}

// processCPU reads a process's own CPU clock. It counts in nanoseconds where /proc/PID/stat counts in ticks of 10 ms,
// and includes threads that have ended.
func processCPU(pid int) (time.Duration, error) {
	const wholeProcess = 2 // CPUCLOCK_SCHED in the low bits of a clock's id
	clock := int32(^pid<<3 | wholeProcess)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory is what processes hold in RAM, in bytes.
type Memory struct {
	RSS     int64 // resident; pages that processes share count for each of them
	PSS     int64 // resident; a page that n processes share counts 1/n for each
	Private int64 // resident and not shared
}

// Memory returns the memory of all processes of the server together.
func (s *Server) Memory() (Memory, error) {
	var sum Memory
	for _, pid := range s.Pids() {
		m, err := ProcessMemory(pid)
		if err != nil {
			return Memory{}, fmt.Errorf("read the memory of %s: %w", s.Name, err)
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
		sum.Private += m.Private
	}
	return sum, nil
}

// ProcessMemory returns the memory of one process.
func ProcessMemory(pid int) (Memory, error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	lines := bufio.NewScanner(bytes.NewReader(rollup))
	for lines.Scan() {
		var kib int64
		name, value, _ := strings.Cut(lines.Text(), ":")
		fmt.Sscanf(value, "%d kB", &kib)
		switch name {
		case "Rss":
			m.RSS += kib << 10
		case "Pss":
			m.PSS += kib << 10
		case "Private_Clean", "Private_Dirty":
			m.Private += kib << 10
		}
	}
	return m, lines.Err()
}

// Files returns how many files the server's processes have open, sockets among them.
func (s *Server) Files() (int, error) {
	sum := 0
	err := s.eachFile(func(string) { sum++ })
	return sum, err
}

// Sockets returns how many sockets the server's processes have open.
func (s *Server) Sockets() (int, error) {
	sum := 0
	err := s.eachFile(func(path string) {
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "socket:") {
			sum++
		}
	})
	return sum, err
}

// eachFile calls f with the path in /proc of each open file of the server's processes.
func (s *Server) eachFile(f func(path string)) error {
	for _, pid := range s.Pids() {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		open, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("count the open files of %s: %w", s.Name, err)
		}
		for _, file := range open {
			f(filepath.Join(dir, file.Name()))
		}
	}
	return nil
}

// member is a process of a process group.
type member struct {
	pid  int
	gone bool // it has ended and waits to be reaped
}

// groupGone reports whether no process of the group runs.
func groupGone(pgid int) bool {
	for _, m := range group(pgid) {
		if !m.gone {
			return false
		}
	}
	return true
}

// group returns the processes of a process group.
func group(pgid int) []member {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	var members []member
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if m, inGroup := readMember(pid, pgid); inGroup {
			members = append(members, m)
		}
	}
	return members
}

// readMember reads /proc/PID/stat: "pid (name) state ppid pgrp …", where the name may hold anything and the number of
// threads is field 20.
func readMember(pid, pgid int) (m member, inGroup bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return member{}, false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 18 || fields[2] != strconv.Itoa(pgid) {
		return member{}, false
	}
	// A main thread that has ended says Z while others still hold its files.
	state, threads := fields[0], fields[17]
	ended := state == "X" || state == "Z" && (threads == "0" || threads == "1")
	return member{pid: pid, gone: ended}, true
}
