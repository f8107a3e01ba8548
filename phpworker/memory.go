package phpworker

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// memory is another process's.
type memory interface {
	// read fills b with what stands at an address. An address that is not mapped is an error.
	read(addr uint64, b []byte) error
}

// errUnmapped is returned for an address at which the process has no memory.
var errUnmapped = errors.New("no memory at that address")

// part is a piece of memory to be read.
type part struct {
	addr uint64
	b    []byte
}

// gatherer reads several pieces of another process's memory at once, in their order.
type gatherer interface {
	gather(parts ...part) error
}

// processMemory is the memory of a process of this host. Whether the process is still the one that was meant is the
// caller's to look at afterwards.
type processMemory int

func (pid processMemory) read(addr uint64, b []byte) error {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	switch {
	case err == nil && n == len(b):
		return nil
	// EFAULT: nothing could be read. A short count: what comes after it is not mapped.
	case err == nil || errors.Is(err, unix.EFAULT):
		return errUnmapped
	case errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: reading the memory of process %d takes CAP_SYS_PTRACE, the system call process_vm_readv, "+
			"and a kernel.yama.ptrace_scope below 3", ErrRights, int(pid))
	}
	return fmt.Errorf("process_vm_readv: %w", err)
}

// gather reads several pieces with one system call.
func (pid processMemory) gather(parts ...part) error {
	var local []unix.Iovec
	var remote []unix.RemoteIovec
	length := 0
	for _, p := range parts {
		iov := unix.Iovec{Base: &p.b[0]}
		iov.SetLen(len(p.b))
		local = append(local, iov)
		remote = append(remote, unix.RemoteIovec{Base: uintptr(p.addr), Len: len(p.b)})
		length += len(p.b)
	}
	n, err := unix.ProcessVMReadv(int(pid), local, remote, 0)
	if err == nil && n < length {
		err = errUnmapped
	}
	return err
}

// pageSize is the smallest that there is; larger ones are multiples of it.
const pageSize = 4096

// readSome reads up to len(b) bytes, and no further than to the end of the page: what comes after may not be mapped.
func readSome(m memory, addr uint64, b []byte) ([]byte, error) {
	b = b[:min(uint64(len(b)), pageSize-addr%pageSize)]
	return b, m.read(addr, b)
}

// cString reads a string that a NUL ends, of at most limit bytes, which may be up to a page. It reads from one page,
// and from the next only if the string goes on there.
func cString(m memory, addr uint64, limit int) (string, error) {
	b, err := readSome(m, addr, make([]byte, limit))
	if err != nil {
		return "", err
	}
	if s, _, ok := bytes.Cut(b, []byte{0}); ok {
		return string(s), nil
	}
	rest := make([]byte, limit-len(b))
	if len(rest) == 0 {
		return "", errNotUnderstood
	}
	more, err := readSome(m, addr+uint64(len(b)), rest)
	if err != nil {
		return "", err
	}
	s, _, ok := bytes.Cut(more, []byte{0})
	if !ok {
		return "", errNotUnderstood
	}
	return string(b) + string(s), nil
}

// A zend_string: 4 bytes of references, 4 of flags, 8 of hash, 8 of length, then the bytes and a NUL. It is the same in
// all versions of PHP since 7.0 on 64 bits.
const (
	stringLength = 16
	stringBytes  = 24
	// maxString is more bytes than a string of PHP can have with any sensible memory_limit.
	maxString = 1 << 30
)

// zendString reads a zend_string of at most limit bytes. The error is errTooLong if it is longer.
func zendString(m memory, addr uint64, limit int) (string, error) {
	b, err := readSome(m, addr, make([]byte, stringBytes+limit+1))
	if err != nil {
		return "", err
	}
	if len(b) < stringBytes { // the header itself is cut by a page's end
		b = make([]byte, stringBytes)
		if err := m.read(addr, b); err != nil {
			return "", err
		}
	}
	length := native.Uint64(b[stringLength:])
	switch {
	// A string in use has at least one reference.
	case native.Uint32(b) == 0 || length > maxString:
		return "", errNotUnderstood
	case length > uint64(limit):
		return "", errTooLong
	}
	whole := stringBytes + int(length) + 1
	if len(b) < whole {
		b = make([]byte, whole)
		if err := m.read(addr, b); err != nil {
			return "", err
		}
	}
	if b[whole-1] != 0 {
		return "", errNotUnderstood
	}
	return string(b[stringBytes : whole-1]), nil
}

// errTooLong is returned for a string that is longer than what is read of it. A visitor may have sent it.
var errTooLong = errors.New("the string is too long to be read")

// errNotUnderstood is returned when something does not look as it should. It may have changed while it was read.
var errNotUnderstood = errors.New("what stands there is not what was expected")
