package phpworker

import (
	"errors"
	"strings"
	"testing"
)

// fakeMemory is a memory in pages, of which some are missing.
type fakeMemory map[uint64][]byte

func (m fakeMemory) read(addr uint64, b []byte) error {
	for n := range b {
		page := m[(addr+uint64(n))/pageSize]
		if page == nil {
			return errUnmapped
		}
		b[n] = page[(addr+uint64(n))%pageSize]
	}
	return nil
}

func (m fakeMemory) write(addr uint64, b []byte) {
	for n := range b {
		at := addr + uint64(n)
		if m[at/pageSize] == nil {
			m[at/pageSize] = make([]byte, pageSize)
		}
		m[at/pageSize][at%pageSize] = b[n]
	}
}

func (m fakeMemory) writeString(addr uint64, s string) {
	b := native.AppendUint32(nil, 1)
	b = append(b, make([]byte, 12)...)
	b = native.AppendUint64(b, uint64(len(s)))
	m.write(addr, append(append(b, s...), 0))
}

func pointer(addr uint64) []byte { return native.AppendUint64(nil, addr) }

// Where things are in a PHP that is made up.
const (
	globalsAt = 0x1000
	nameAt    = 0x2000
	moduleAt  = 0x3000
	handlerAt = 0x4000
	idAt      = 0x5000
	fileAt    = 0x7000
)

// newFakePHP has a session open.
func newFakePHP() fakeMemory {
	m := make(fakeMemory)
	m.write(globalsAt, make([]byte, psGlobalsSize))
	m.write(nameAt, []byte("PHPSESSID\x00"))
	m.write(handlerAt, []byte("files\x00"))
	m.write(moduleAt, pointer(handlerAt))
	m.writeString(idAt, "abc")
	m.writeString(fileAt, "/srv/cart.php")
	m.write(globalsAt+offsetName, pointer(nameAt))
	m.write(globalsAt+offsetModule, pointer(moduleAt))
	m.write(globalsAt+offsetID, pointer(idAt))
	m.write(globalsAt+offsetFile, pointer(fileAt))
	m.write(globalsAt+offsetLine, []byte{7, 0, 0, 0})
	m.write(globalsAt+offsetStatus, []byte{2, 0, 0, 0})
	return m
}

func TestSessionsAreRead(t *testing.T) {
	open := Session{Active, "abc", "PHPSESSID", "files", "", 0, 0}
	started := Session{Active, "abc", "PHPSESSID", "files", "/srv/cart.php", 7, 0}
	long := strings.Repeat("x", maxID)
	stringName := func(m fakeMemory) { m.writeString(nameAt, "PHPSESSID") }
	for name, tt := range map[string]struct {
		version version
		change  func(fakeMemory)
		want    Session
	}{
		"open":                    {"8.2.36", func(fakeMemory) {}, open},
		"open, of a newer PHP":    {"8.4.1", func(fakeMemory) {}, started},
		"open, of an unknown PHP": {"9.0.0", func(fakeMemory) {}, open},
		"a string of a name":      {"8.5.7", stringName, started},
		"of an unknown PHP":       {"9.0.0", stringName, open},
		"of no version":           {"", stringName, open},
		"without a handler":       {"8.2.36", func(m fakeMemory) { m.write(globalsAt+offsetModule, pointer(0)) }, Session{Active, "abc", "PHPSESSID", "", "", 0, 0}},
		"closed":                  {"8.2.36", func(m fakeMemory) { m.write(globalsAt+offsetStatus, []byte{1}) }, Session{None, "abc", "PHPSESSID", "files", "", 0, 0}},
		"not opened": {"8.2.36", func(m fakeMemory) {
			m.write(globalsAt+offsetID, pointer(0))
			m.write(globalsAt+offsetStatus, []byte{1})
		}, Session{None, "", "PHPSESSID", "files", "", 0, 0}},
		"disabled": {"7.4.33", func(m fakeMemory) {
			m.write(globalsAt+offsetID, pointer(0))
			m.write(globalsAt+offsetStatus, []byte{0})
		}, Session{Disabled, "", "PHPSESSID", "files", "", 0, 0}},
		"an id as long as can be": {"8.2.36", func(m fakeMemory) { m.writeString(idAt, long) }, Session{Active, long, "PHPSESSID", "files", "", 0, 0}},
		"an id that is too long": {
			"8.2.36", func(m fakeMemory) { m.writeString(idAt, long+"x") },
			Session{Unknown, "", "PHPSESSID", "files", "", 0, 0},
		},
		"an id at the end of memory": {"8.2.36", func(m fakeMemory) {
			m.writeString(0x9000-28, "abc") // up to the last byte of its page
			m.write(globalsAt+offsetID, pointer(0x9000-28))
		}, open},
		"an id over two pages": {"8.2.36", func(m fakeMemory) {
			m.writeString(0x9000-10, "abc")
			m.write(globalsAt+offsetID, pointer(0x9000-10))
		}, open},
		"a name over two pages": {"8.2.36", func(m fakeMemory) {
			m.write(0x9000-3, []byte("PHPSESSID\x00"))
			m.write(globalsAt+offsetName, pointer(0x9000-3))
		}, open},
	} {
		t.Run(name, func(t *testing.T) {
			m := newFakePHP()
			tt.change(m)
			if got, err := readSession(m, globalsAt, tt.version); err != nil || got != tt.want {
				t.Errorf("got %+v (%v), want %+v", got, err, tt.want)
			}
		})
	}
}

func TestWhatDoesNotLookLikeASessionIsRefused(t *testing.T) {
	for name, change := range map[string]func(fakeMemory){
		"a status out of range":     func(m fakeMemory) { m.write(globalsAt+offsetStatus, []byte{3}) },
		"a negative status":         func(m fakeMemory) { m.write(globalsAt+offsetStatus, []byte{255, 255, 255, 255}) },
		"a name nowhere":            func(m fakeMemory) { m.write(globalsAt+offsetName, pointer(0)) },
		"a name with a line break":  func(m fakeMemory) { m.write(nameAt, []byte("a\nb\x00")) },
		"a name that is a string":   func(m fakeMemory) { m.write(globalsAt+offsetName, pointer(idAt)) },
		"an empty name":             func(m fakeMemory) { m.write(nameAt, []byte{0}) },
		"a name without an end":     func(m fakeMemory) { m.write(nameAt, []byte(strings.Repeat("x", maxName+1))) },
		"a handler nowhere":         func(m fakeMemory) { m.write(moduleAt, pointer(0xdead0000)) },
		"a handler with a space":    func(m fakeMemory) { m.write(handlerAt, []byte("a b\x00")) },
		"an id nowhere":             func(m fakeMemory) { m.write(globalsAt+offsetID, pointer(0xdead0000)) },
		"an id of an absurd length": func(m fakeMemory) { m.write(idAt+stringLength, pointer(maxString+1)) },
		"an id without an end":      func(m fakeMemory) { m.write(idAt+stringBytes+3, []byte("x")) },
		"an id without references":  func(m fakeMemory) { m.write(idAt, []byte{0, 0, 0, 0}) },
		"nothing":                   func(m fakeMemory) { clear(m) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newFakePHP()
			change(m)
			if got, err := readSession(m, globalsAt, "8.2.36"); !errors.Is(err, ErrLayout) {
				t.Errorf("got %+v (%v), want %v", got, err, ErrLayout)
			}
		})
	}
}

// TestANameThatIsNoneIsRefused, be it a C string or PHP's; where the version says which it is, so is the other one.
func TestANameThatIsNoneIsRefused(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for name, tt := range map[string]struct {
		version version
		write   func(fakeMemory)
	}{
		"PHP's in place of a C string":    {"8.4.1", func(m fakeMemory) { m.writeString(nameAt, "PHPSESSID") }},
		"a C string in place of PHP's":    {"8.5.7", func(m fakeMemory) { m.write(nameAt, []byte("PHPSESSID\x00")) }},
		"nowhere":                         {"8.5.7", func(m fakeMemory) { m.write(globalsAt+offsetName, pointer(0)) }},
		"empty":                           {"8.5.7", func(m fakeMemory) { m.writeString(nameAt, "") }},
		"with a line break":               {"8.5.7", func(m fakeMemory) { m.writeString(nameAt, "a\nb") }},
		"too long":                        {"8.5.7", func(m fakeMemory) { m.writeString(nameAt, long) }},
		"nowhere, of an unknown PHP":      {"9.0.0", func(m fakeMemory) { m.write(globalsAt+offsetName, pointer(0)) }},
		"empty, of an unknown PHP":        {"9.0.0", func(m fakeMemory) { m.writeString(nameAt, "") }},
		"a line break, of an unknown PHP": {"9.0.0", func(m fakeMemory) { m.write(nameAt, []byte("a\nb\x00")) }},
		"too long, of an unknown PHP":     {"9.0.0", func(m fakeMemory) { m.writeString(nameAt, long) }},
	} {
		m := newFakePHP()
		tt.write(m)
		if got, err := readSession(m, globalsAt, tt.version); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: got %+v (%v), want %v", name, got, err, ErrLayout)
		}
	}
}

// busyMemory changes each time that the globals were read, a few times.
type busyMemory struct {
	fakeMemory
	changes int
}

func (m *busyMemory) read(addr uint64, b []byte) error {
	err := m.fakeMemory.read(addr, b)
	if addr == globalsAt && m.changes > 0 {
		m.changes--
		m.writeString(idAt+uint64(m.changes+1)*64, "new")
		m.write(globalsAt+offsetID, pointer(idAt+uint64(m.changes+1)*64))
	}
	return err
}

func TestASessionThatChangesWhileItIsReadIsReadAgain(t *testing.T) {
	for changes, want := range []string{"abc", "new", "new"} {
		m := &busyMemory{newFakePHP(), changes}
		if got, err := readSession(m, globalsAt, "8.2.36"); err != nil || got.ID != want {
			t.Errorf("after %d changes: got %q (%v), want %q", changes, got.ID, err, want)
		}
	}
	m := &busyMemory{newFakePHP(), 1} // it opens its session while the name is read
	m.write(globalsAt+offsetID, pointer(0))
	m.write(globalsAt+offsetFile, pointer(0))
	if got, err := readSession(m, globalsAt, "8.2.36"); err != nil || got.ID != "new" {
		t.Errorf("of one that had no id: got %q (%v), want it read again", got.ID, err)
	}
	if _, err := readSession(&busyMemory{newFakePHP(), 1000}, globalsAt, "8.2.36"); !errors.Is(err, ErrLayout) {
		t.Errorf("of one that never rests: got %v, want %v", err, ErrLayout)
	}
}

// endlessMemory has the same bytes again and again, at all addresses but those of one page in four.
type endlessMemory []byte

func (m endlessMemory) read(addr uint64, b []byte) error {
	for n := range b {
		at := addr + uint64(n)
		if len(m) == 0 || at/pageSize%4 == 3 {
			return errUnmapped
		}
		b[n] = m[at%uint64(len(m))]
	}
	return nil
}

func FuzzSession(f *testing.F) {
	f.Add([]byte{}, uint64(0))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00"), uint64(0x5000))
	m := newFakePHP()
	var flat []byte
	for page := uint64(1); page <= 7; page++ {
		flat = append(flat, m[page]...)
		flat = append(flat, make([]byte, pageSize-len(m[page]))...)
	}
	f.Add(flat, uint64(0))
	f.Fuzz(func(t *testing.T, bytes []byte, addr uint64) {
		for _, v := range []version{"7.4.33", "8.4.1", "8.5.7", ""} {
			s, err := readSession(endlessMemory(bytes), addr, v)
			if err != nil {
				if s != (Session{}) || !errors.Is(err, ErrLayout) {
					t.Fatalf("got %+v, %v", s, err)
				}
				continue
			}
			if len(s.ID) > maxID || len(s.Name) > maxName || s.Name == "" || len(s.Handler) > maxHandler || len(s.StartedFile) > maxPath ||
				s.Status < Unknown || s.Status > Active {
				t.Fatalf("got %+v", s)
			}
		}
	})
}
