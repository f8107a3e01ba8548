package phpworker

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

const someMaps = `55d0a0000000-55d0a0100000 r--p 00000000 fd:00 1234                       /usr/sbin/php-fpm8.2
55d0a0100000-55d0a0400000 r-xp 00100000 fd:00 1234                       /usr/sbin/php-fpm8.2
55d0a2000000-55d0a2100000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 r--p 00000000 fd:00 99                         /usr/lib/php/modules/session.so
7f0000002000-7f0000003000 r--p 00000000 fd:00 77                         /opt/my php/php-fpm (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
`

func TestMappingsAreFound(t *testing.T) {
	for path, want := range map[string]uint64{
		"/usr/sbin/php-fpm8.2":            0x55d0a0000000,
		"/usr/lib/php/modules/session.so": 0x7f0000000000,
		"/opt/my php/php-fpm (deleted)":   0x7f0000002000,
	} {
		got, err := firstMapping([]byte(someMaps), func(name string) bool { return name == path }, 0)
		if err != nil || got != want {
			t.Errorf("%s: got %x (%v), want %x", path, got, err, want)
		}
	}
	if _, err := firstMapping([]byte(someMaps), func(name string) bool { return name == "/usr" }, 0); !errors.Is(err, ErrLayout) {
		t.Errorf("got %v, want %v", err, ErrLayout)
	}
}

// A worker goes on with the session module that it has loaded when an upgrade puts another file in its place.
func TestReplacedSessionModuleIsReported(t *testing.T) {
	maps := strings.ReplaceAll(someMaps, moduleFile, moduleFile+deletedMark)
	_, err := new(programs).separate(nil, &program{err: errNoModule}, []byte(maps))
	if !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), "restart PHP-FPM") {
		t.Errorf("got %v, want to be asked to restart PHP-FPM", err)
	}
	maps = strings.ReplaceAll(someMaps, moduleFile, "other.so"+deletedMark)
	if _, err := new(programs).separate(nil, &program{err: errNoModule}, []byte(maps)); !errors.Is(err, errNoModule) {
		t.Errorf("got %v, want %v", err, errNoModule)
	}
}

func FuzzMaps(f *testing.F) {
	f.Add([]byte(someMaps))
	f.Fuzz(func(t *testing.T, maps []byte) {
		_, _ = firstMapping(maps, func(string) bool { return true }, 0)
	})
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("1234 (php-fpm8.2 (x)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"))
	f.Add([]byte("7 0x7ffd 0x1 0x1388 0x0 0x0 0x0 0x7ffd 0x7f00"))
	f.Add([]byte("Name:\tphp\nSigCgt:\t0000000000010000\nCapEff:\t00000000000000ff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err == nil && s.state == 0 {
			t.Error("there is no state")
		}
		if c, ok := parseSyscall(text); ok && c.number < 0 {
			t.Error("there is no such system call")
		}
		_, _ = caughtSignals(text)
		_ = missingRights(text)
		for _, pid := range parsePIDs(text) {
			if pid <= 0 {
				t.Error("there is no such process")
			}
		}
	})
}

func TestStatIsParsed(t *testing.T) {
	got, err := parseStat([]byte("77 (a) b) c) R 12 2 3 4 5 6 7 8 9 10 100 20 13 14 15 16 17 18 4711 20"))
	if want := (stat{'R', 12, 120, 4711}); err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

func FuzzDiag(f *testing.F) {
	f.Add([]byte("\x24\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x01\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x08\x00\x02\x00\x05\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if body, err := diagBody(answer); err == nil {
			_, _ = peerOf(body)
		}
		_, _ = peerOf(answer)
	})
}

// FuzzAnswer: a helper that lies does no harm, and an error is one of this package.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`+{"Status":3,"ID":"abc"}`))
	f.Add([]byte("-gone the worker is gone"))
	f.Add([]byte("-\nwhat"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var s Session
		err := parseAnswer(answer, &s)
		if err == nil {
			return
		}
		if Reason(err) == "other" || len(err.Error()) > 2*maxText+100 && answer[0] == answerError {
			t.Errorf("got %v", err)
		}
		if strings.ContainsAny(err.Error(), "\x00\x1b\r") {
			t.Errorf("got %q", err)
		}
	})
}

func TestErrorsKeepTheirKindOnTheirWay(t *testing.T) {
	for _, r := range reasons {
		sent := fmt.Errorf("find the worker: %w: and why", r.err)
		got := parseAnswer(appendError(nil, sent), nil)
		if !errors.Is(got, r.err) || got.Error() != sent.Error() || Reason(got) != r.word {
			t.Errorf("%s: got %v (%s)", r.word, got, Reason(got))
		}
	}
	if got := Reason(nil); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func TestVersionsAreFound(t *testing.T) {
	filler := strings.Repeat("x", 1<<16-10)
	for text, want := range map[string]version{
		"X-Powered-By: PHP/8.2.36\x00":                            "8.2.36",
		filler + "X-Powered-By: PHP/8.4.1-dev\x00" + filler:       "8.4.1-dev",
		filler + filler[:20] + "X-Powered-By: PHP/7.4.33\x00rest": "7.4.33",
		"X-Powered-By: PHP/%s\x00":                                "",
		filler:                                                    "",
		"":                                                        "",
	} {
		if got := findVersion(strings.NewReader(text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for v, want := range map[version]int{"8.2.36": 802, "7.4": 704, "8": 0, "": 0, "x.y": 0, "8.4.1-dev": 804} {
		if got := v.number(); got != want {
			t.Errorf("%q: got %d, want %d", v, got, want)
		}
	}
}

// phpFPM is the program that this machine has.
func phpFPM(t testing.TB) []byte {
	t.Helper()
	rigtest.Need(t, "php-fpm")
	path, err := rig.Find("php-fpm")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTheSessionModuleIsFoundInARealProgram(t *testing.T) {
	program := phpFPM(t)
	p := readProgram(bytes.NewReader(program), int64(len(program)))
	if p.err != nil || p.globals == 0 || !p.version.isKnown() || !p.proven.Load() {
		t.Errorf("got %+v", p)
	}
}

func TestProgramsThatCannotBeUsed(t *testing.T) {
	program := phpFPM(t)
	renamed := func(from, to string) []byte {
		return bytes.ReplaceAll(program, []byte("\x00"+from+"\x00"), []byte("\x00"+to+"\x00"))
	}
	other := bytes.Clone(program)
	other[18] = byte(elf.EM_S390)
	for name, tt := range map[string]struct {
		program []byte
		want    error
		text    string
	}{
		"without the symbol": {renamed("ps_globals", "ps_globalz"), ErrLayout, "ps_globals is missing"},
		"thread-safe":        {renamed(symbolOfLength(t, program, len("ps_globals_id")), "ps_globals_id"), ErrThreadSafe, "without threads"},
		"another processor":  {other, ErrLayout, "another processor"},
		"no program":         {[]byte("#!/bin/sh\n"), ErrLayout, "cannot be read"},
		"empty":              {nil, ErrLayout, "cannot be read"},
	} {
		p := readProgram(bytes.NewReader(tt.program), int64(len(tt.program)))
		if !errors.Is(p.err, tt.want) || !strings.Contains(fmt.Sprint(p.err), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", name, p.err, tt.want, tt.text)
		}
	}
	for length := 1; length < len(program); length += len(program) / 50 {
		if p := readProgram(bytes.NewReader(program[:length]), int64(length)); p.err == nil {
			t.Errorf("cut at %d: it was not noticed", length)
		}
	}
}

// symbolOfLength is the name of one of the symbols that a program exports.
func symbolOfLength(t *testing.T, program []byte, length int) string {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if len(s.Name) == length && s.Section != elf.SHN_UNDEF && bytes.Contains(program, []byte("\x00"+s.Name+"\x00")) {
			return s.Name
		}
	}
	t.Fatalf("no symbol has a name of %d bytes", length)
	return ""
}

func FuzzProgram(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, program []byte) {
		p := readProgram(bytes.NewReader(program), int64(len(program)))
		if p.err == nil && p.globals == 0 {
			t.Error("it has no address")
		}
	})
}

func TestRightsThatAreMissingAreNamed(t *testing.T) {
	for effective, want := range map[string]string{
		"0000000000080020": "",
		"0000000000080000": "no CAP_KILL",
		"0000000000000020": "no CAP_SYS_PTRACE",
		"0000000000000000": "no CAP_SYS_PTRACE and no CAP_KILL",
	} {
		err := missingRights([]byte("Name:\tx\nCapEff:\t" + effective + "\n"))
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrRights) || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", effective, err, want)
		}
	}
}
