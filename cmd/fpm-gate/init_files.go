package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// systemFiles are the files that init reads, and what is wrong with them. Paths in the files are absolute on the
// machine that they configure. That machine's files may be below another root here, so paths are joined to it.
type systemFiles struct {
	root     string   // "/", or where a system's files are
	problems []string // files that could not be read, and lines that make no sense
}

// path returns where a path of the system is found here.
func (s *systemFiles) path(path string) string { return filepath.Join(s.root, path) }

// glob returns the files of the system that match a pattern, as they are found here.
func (s *systemFiles) glob(pattern string) []string {
	files, _ := filepath.Glob(s.path(pattern))
	return files
}

// exists reports whether the system has a file or folder.
func (s *systemFiles) exists(path string) bool {
	_, err := os.Stat(s.path(path))
	return err == nil
}

// hasAny reports whether one of the files is in a folder of the system, or next to it.
func (s *systemFiles) hasAny(folder string, files []string) bool {
	return slices.ContainsFunc(files, func(file string) bool { return s.exists(filepath.Join(folder, file)) })
}

// mayRead reports whether a file can be read, and notes it if it is there and cannot; and lines of it that make no
// sense.
func (s *systemFiles) mayRead(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			s.note("cannot read %s: permission denied; run init as root", path)
		}
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return err == nil
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		if strings.HasSuffix(path, ".ini") && !isINILine(lines.Text()) {
			s.note("%s:%d: not a line of php.ini; PHP may read none of the file", path, n)
		}
	}
	return true
}

// note adds a problem once: several pools read the same files.
func (s *systemFiles) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.problems, text) {
		s.problems = append(s.problems, text)
	}
}
