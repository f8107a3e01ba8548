package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// readINI reads the sections of a php.ini or a pool file. It returns none if the file cannot be read. Of a key that
// comes twice in a section, the last value counts, as for PHP.
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
			section = settings{sectionKey: {strings.TrimSpace(name), fmt.Sprintf("%s:%d", file, n)}}
			continue
		}
		key, value, is := strings.Cut(line, "=")
		if is && !strings.HasPrefix(line, ";") && !strings.HasPrefix(line, "#") {
			if v, ok := iniValue(value); ok {
				section[iniKey(key)] = setting{v, fmt.Sprintf("%s:%d", file, n)}
			}
		}
	}
	return append(all, section)
}

// setting is a value and its file and line.
type setting struct{ value, place string }

// settings are the settings of one section of a file, by key. sectionKey has its name.
type settings map[string]setting

const sectionKey = "[]" // no line of a file can set it

// addMissing adds the settings that s does not have.
func (s settings) addMissing(others settings) {
	for key, value := range others {
		if _, is := s[key]; !is {
			s[key] = value
		}
	}
}

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
func iniKey(key string) string {
	key = strings.TrimSpace(key)
	if value, is := strings.CutSuffix(key, "]"); is {
		for _, before := range []string{"_value[", "_flag["} {
			if _, inner, is := strings.Cut(value, before); is {
				return inner
			}
		}
	}
	return key
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
