package phpworker

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// version is PHP's, such as 8.2.36; empty if it was not found.
type version string

// number returns the version up to its first dot but one, as 802 for 8.2; 0 if it is not known.
func (v version) number() int {
	major, rest, _ := strings.Cut(string(v), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err1 != nil || err2 != nil || a < 0 || a > 99 || b < 0 || b > 99 {
		return 0
	}
	return a*100 + b
}

// isKnown reports whether the layout of the version was looked up.
func (v version) isKnown() bool { return v.number() >= 704 && v.number() <= lastKnown }

// hasStarted reports whether the version is known to keep where the session was started.
func (v version) hasStarted() bool { return v.number() >= 803 && v.number() <= lastKnown }

// namesAreStrings reports whether the version is known to keep session.name as a zend_string.
func (v version) namesAreStrings() bool { return v.number() >= 805 && v.number() <= lastKnown }

// lastKnown is the number of the last version whose layout was looked up.
const lastKnown = 805

func (v version) String() string {
	if v == "" {
		return "of an unknown version"
	}
	return string(v)
}

// program is a file with PHP's session module in it: php-fpm, or session.so where that is a file of its own.
type program struct {
	version version
	globals uint64 // the value of the symbol ps_globals
	load    uint64 // the address of the first segment that is loaded, at the start of a page
	offset  uint64 // its place in the file
	moved   bool   // it is loaded anywhere, and load is relative to that
	err     error  // why it cannot be used

	// proven is set when a worker was seen with its session open, as the layout has it. For versions that are known it
	// is set from the start.
	proven atomic.Bool
	vars   sessionVars
}

// fileID says which file a program is, and of which day.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

// programs keeps what was found in the files. An upgrade is a new file.
type programs struct {
	mu   sync.Mutex
	byID map[fileID]*program
}

// maxPrograms bounds what is kept: more is not seen but where files change all the time.
const maxPrograms = 64

// get returns what is in an ELF file that the process runs or has loaded. Its error is one of the file's reading.
func (c *programs) get(f *os.File) (*program, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	id := fileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim}
	c.mu.Lock()
	defer c.mu.Unlock() // whoever else wants the same file is better off waiting for it
	if p := c.byID[id]; p != nil {
		return p, nil
	}
	p := readProgram(f, st.Size)
	if c.byID == nil || len(c.byID) >= maxPrograms {
		c.byID = make(map[fileID]*program)
	}
	c.byID[id] = p
	return p, nil
}

// maxProgram is larger than any PHP.
const maxProgram = 1 << 30

// readProgram looks for PHP's session module in an ELF file.
func readProgram(r io.ReaderAt, size int64) *program {
	p := &program{}
	p.err = p.parse(r, size)
	p.proven.Store(p.version.isKnown())
	return p
}

func (p *program) parse(r io.ReaderAt, size int64) error {
	if size > maxProgram {
		return layoutError("its program has %d MiB", size>>20)
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return layoutError("its program cannot be read: %v", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != machine {
		return layoutError("its program is for another processor (%s), or for 32 bits", f.Machine)
	}
	if s := f.Section(".rodata"); s != nil {
		p.version = findVersion(io.NewSectionReader(s, 0, min(int64(s.Size), size)))
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return layoutError("its program exports no symbols: %v", err)
	}
	// Extensions with session handlers use ps_globals, so PHP exports it. In such an extension it is undefined. With
	// threads there are the other two in its place.
	for _, s := range symbols {
		switch {
		case s.Name == "ps_globals" && s.Section != elf.SHN_UNDEF:
			p.globals = s.Value
		case s.Name == "ps_globals_id" || s.Name == "ps_globals_offset":
			return fmt.Errorf("%w: use a PHP-FPM that was built without threads", ErrThreadSafe)
		}
	}
	if p.globals == 0 {
		return errNoModule
	}
	for _, seg := range f.Progs {
		if seg.Type == elf.PT_LOAD {
			p.load, p.offset, p.moved = seg.Vaddr&^(pageSize-1), seg.Off&^(pageSize-1), f.Type == elf.ET_DYN
			return nil
		}
	}
	return layoutError("its program has no segments")
}

// errNoModule is returned for a file without PHP's session module.
var errNoModule = fmt.Errorf("%w: its program has no session module: the symbol ps_globals is missing", ErrLayout)

// versionMark stands before PHP's version in the header that PHP adds to its responses.
const versionMark = "X-Powered-By: PHP/"

// findVersion finds PHP's version among a program's constants.
func findVersion(r io.Reader) version {
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		window, err := in.Peek(1 << 16)
		if i := bytes.Index(window, []byte(versionMark)); i >= 0 && (i+64 <= len(window) || err != nil) {
			v, _, _ := bytes.Cut(window[i+len(versionMark):min(i+64, len(window))], []byte{0})
			if version(v).number() == 0 {
				return ""
			}
			return version(v)
		}
		if err != nil {
			return ""
		}
		// The next window overlaps with this one, as the mark may lie across its end.
		_, _ = in.Discard(len(window) - 64)
	}
}

// layoutError is an error that wraps ErrLayout.
func layoutError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrLayout, fmt.Sprintf(format, args...))
}

// module is PHP's session module in one process.
type module struct {
	*program
	version version
	addr    uint64 // of ps_globals
}

// moduleFile is the session module's where it is not part of the program.
const moduleFile = "session.so"

// module finds PHP's session module in a process.
func (c *programs) module(p *process) (module, error) {
	exe, err := p.open("exe")
	if err != nil {
		return module{}, err
	}
	defer exe.Close()
	main, err := c.get(exe)
	if err != nil {
		return module{}, err
	}
	maps, err := p.read("maps", maxMaps)
	if err != nil {
		return module{}, err
	}
	if main.err == nil {
		path, err := p.readlink("exe")
		if err != nil {
			return module{}, err
		}
		// Both have the same mark if the file was deleted, so this is the link as it is.
		addr, err := main.locate(maps, func(name string) bool { return name == path })
		return module{main, main.version, addr}, err
	}
	if !errors.Is(main.err, errNoModule) {
		return module{}, main.err
	}
	return c.separate(p, main, maps)
}

// separate finds the session module in a file of its own, as some distributions have it.
func (c *programs) separate(p *process, main *program, maps []byte) (module, error) {
	path, deleted := "", false
	_, err := firstMapping(maps, func(name string) bool {
		path, deleted = strings.CutSuffix(name, deletedMark)
		return filepath.Base(path) == moduleFile
	}, 0)
	if err != nil {
		return module{}, main.err
	}
	errReplaced := layoutError("%s, which PHP has loaded, was replaced or removed: restart PHP-FPM", path)
	if deleted { // as by an upgrade: the file that has the path now is another one
		return module{}, errReplaced
	}
	// The path is one of the process's own mount namespace and root directory.
	f, err := p.open("root" + path)
	if err != nil {
		return module{}, errReplaced
	}
	defer f.Close()
	so, err := c.get(f)
	if err != nil {
		return module{}, err
	}
	if so.err != nil {
		return module{}, so.err
	}
	if main.version.isKnown() {
		so.proven.Store(true) // its file does not say its version
	}
	addr, err := so.locate(maps, func(name string) bool { return name == path })
	return module{so, main.version, addr}, err
}

// locate returns the address of ps_globals in a process that has the program in its memory. The segments of one that is
// moved keep their distances, so every address is off by as much as that of the first.
func (p *program) locate(maps []byte, isFile func(name string) bool) (uint64, error) {
	if !p.moved {
		return p.globals, nil
	}
	start, err := firstMapping(maps, isFile, p.offset)
	if err != nil {
		return 0, err
	}
	return start - p.load + p.globals, nil
}

// maxMaps is more than /proc/PID/maps of any PHP has: 60,000 mappings.
const maxMaps = 8 << 20

// firstMapping returns the first address at which a file is mapped from that offset on.
func firstMapping(maps []byte, isFile func(name string) bool, offset uint64) (uint64, error) {
	for line := range bytes.Lines(maps) {
		// start-end perms offset dev inode, then spaces and the path
		fields := bytes.SplitN(bytes.TrimRight(line, "\n"), []byte(" "), 6)
		if len(fields) < 6 {
			continue
		}
		start, _, _ := bytes.Cut(fields[0], []byte("-"))
		from, err1 := strconv.ParseUint(string(start), 16, 64)
		at, err2 := strconv.ParseUint(string(fields[2]), 16, 64)
		if err1 == nil && err2 == nil && at == offset && isFile(string(bytes.TrimLeft(fields[5], " "))) {
			return from, nil
		}
	}
	return 0, layoutError("the program is not in the process's memory")
}
