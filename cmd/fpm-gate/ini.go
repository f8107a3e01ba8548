package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// readPHPINI reads the settings of a php.ini. PHP makes nothing of its sections, so the last value of a key counts
// wherever it stands. What follows a section of a folder or a host is for these only, up to the end of the file.
func readPHPINI(file string) settings {
	all := settings{}
	for _, section := range readINI(file) {
		name := strings.ToUpper(section[sectionKey].value)
		if len(name) > 4 && (strings.HasPrefix(name, "PATH") || strings.HasPrefix(name, "HOST")) {
			break
		}
		all.add(section)
	}
	return all
}

// readPools reads the pools of files, in their order. PHP-FPM takes all sections of one name in a folder's files for
// one pool: in its image, zz-docker.conf changes a key of the pool in www.conf.
func readPools(files []string) (all []settings) {
	type name struct{ folder, pool string }
	known := map[name]settings{}
	for _, file := range files {
		for _, section := range readINI(file) {
			if section[sectionKey].place == "" {
				continue // what stands before the first section is in no pool
			}
			n := name{filepath.Dir(file), strings.ToLower(section[sectionKey].value)}
			pool := known[n]
			if pool == nil {
				known[n] = section
				all = append(all, section)
				continue
			}
			delete(section, sectionKey) // the name and place stay those of the first
			pool.add(section)
		}
	}
	return all
}

// readINI reads the sections of a php.ini or a pool file. It returns none if the file cannot be read. Which value of a
// key that comes twice in a section counts is up to set.
func readINI(file string) (all []settings) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	section := settings{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			all = append(all, section)
			name, _, _ := strings.Cut(line[1:], "]")
			section = settings{sectionKey: {value: strings.TrimSpace(name), place: fmt.Sprintf("%s:%d", file, n)}}
			continue
		}
		key, value, is := strings.Cut(line, "=")
		if is && !strings.HasPrefix(line, ";") && !strings.HasPrefix(line, "#") {
			if v, ok := iniValue(value); ok {
				name, rank := iniKey(key)
				section.set(name, setting{v, fmt.Sprintf("%s:%d", file, n), rank})
			}
		}
	}
	return append(all, section)
}

// setting is a value and its file and line.
type setting struct {
	value, place string
	rank         rank
}

// rank is by what kind of line a pool file sets a key of php.ini.
type rank int

const (
	ownKey   rank = iota // of the file itself
	phpValue             // php_value or php_flag
	phpAdmin             // php_admin_value or php_admin_flag, which nothing can change
)

// settings are the settings of one section of a file, by key. sectionKey has its name.
type settings map[string]setting

const sectionKey = "[]" // no line of a file can set it

// set sets a key as a later line of its file does. The last line counts, but not for what a pool sets of php.ini:
// PHP-FPM applies these lines from the last to the first, those of php_admin_value after the others.
func (s settings) set(key string, v setting) {
	if old, is := s[key]; !is || v.rank > old.rank || v.rank == ownKey && old.rank == ownKey {
		s[key] = v
	}
}

// add sets what a later section has.
func (s settings) add(later settings) {
	for key, v := range later {
		s.set(key, v)
	}
}

// addMissing adds the settings that s does not have.
func (s settings) addMissing(others settings) {
	for key, value := range others {
		if _, is := s[key]; !is {
			s[key] = value
		}
	}
}

// folder returns the folder of a pool's file.
func (s settings) folder() string { return filepath.Dir(s[sectionKey].place) }

// expandPool replaces $pool in all values of a pool, as PHP-FPM does.
func (s settings) expandPool() {
	name := s[sectionKey].value
	for key, v := range s {
		v.value = strings.ReplaceAll(v.value, "$pool", name)
		s[key] = v
	}
}

// iniKey returns the php.ini key that a line sets: in a pool file, "session.name" of
// php_admin_value[session.name].
func iniKey(key string) (name string, by rank) {
	key = strings.TrimSpace(key)
	if value, is := strings.CutSuffix(key, "]"); is {
		for _, before := range []string{"_value[", "_flag["} {
			kind, inner, is := strings.Cut(value, before)
			switch {
			case is && kind == "php_admin":
				return inner, phpAdmin
			case is:
				return inner, phpValue
			}
		}
	}
	return key, ownKey
}

// iniValue returns the value that PHP reads from the text after "=", without quotes and comment, and reports whether
// PHP accepts it. Of an expression, such as one of error_reporting, and of ${name} it returns the text, and so of the
// words for true and false.
func iniValue(text string) (value string, ok bool) {
	var b strings.Builder
	for text = strings.TrimSpace(text); text != "" && text[0] != ';'; {
		if quote := text[0]; quote == '"' || quote == '\'' {
			inner, rest, closed := cutQuoted(text)
			if !closed {
				return "", false
			}
			b.WriteString(inner)
			text = strings.TrimLeft(rest, " \t")
			continue
		}
		n := strings.IndexAny(text, `;"'`)
		if n < 0 {
			n = len(text)
		}
		plain := text[:n]
		if text = text[n:]; !strings.HasPrefix(text, "'") { // PHP keeps the space before that quote
			plain = strings.TrimRight(plain, " \t")
		}
		if strings.Contains(plain, "=") {
			return "", false
		}
		b.WriteString(plain)
	}
	return b.String(), true
}

// cutQuoted cuts text after the quoted string that it starts with. In double quotes, a backslash stands before a quote,
// a backslash or a dollar that is meant as such.
func cutQuoted(text string) (inner, rest string, closed bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == text[0]:
			return b.String(), text[i+1:], true
		case text[0] == '"' && text[i] == '\\' && i+1 < len(text) && strings.IndexByte(`"\$`, text[i+1]) >= 0:
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// isINILine reports whether php.ini may have such a line. A key without a value is one.
func isINILine(line string) bool {
	line = strings.TrimSpace(line)
	switch {
	case line == "" || line[0] == ';' || line[0] == '#':
		return true
	case line[0] == '[':
		return strings.Contains(line, "]")
	}
	key, value, _ := strings.Cut(line, "=")
	_, ok := iniValue(value)
	return ok && iniKeyForm.MatchString(strings.TrimSpace(key))
}

var iniKeyForm = regexp.MustCompile(`^[^=\s;"]+$`)
