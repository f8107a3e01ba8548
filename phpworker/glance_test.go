package phpworker

import "testing"

func (m fakeMemory) gather(parts ...part) error {
	for _, p := range parts {
		if err := m.read(p.addr, p.b); err != nil {
			return err
		}
	}
	return nil
}

// TestWhatHasChangedSinceTheLastLookIsNoticed: whatever of a session changes, it is read anew.
func TestWhatHasChangedSinceTheLastLookIsNoticed(t *testing.T) {
	for name, change := range map[string]func(fakeMemory){
		"closed":            func(m fakeMemory) { m.write(globalsAt+offsetStatus, []byte{1}) },
		"destroyed":         func(m fakeMemory) { m.write(globalsAt+offsetID, pointer(0)) },
		"another id":        func(m fakeMemory) { m.writeString(idAt, "abd") },
		"a longer id":       func(m fakeMemory) { m.writeString(idAt, "abcd") },
		"an id elsewhere":   func(m fakeMemory) { m.write(globalsAt+offsetID, pointer(fileAt)) },
		"an id nowhere":     func(m fakeMemory) { m.write(globalsAt+offsetID, pointer(0xdead0000)) },
		"another handler":   func(m fakeMemory) { m.write(globalsAt+offsetModule, pointer(nameAt)) },
		"started elsewhere": func(m fakeMemory) { m.write(globalsAt+offsetLine, []byte{8}) },
		"its variable":      func(m fakeMemory) { m.write(globalsAt+varsFrom+24, []byte{1}) },
		"all gone":          func(m fakeMemory) { clear(m) },
	} {
		m := newFakePHP()
		s, err := readSession(m, globalsAt, "8.2.36")
		if err != nil {
			t.Fatal(err)
		}
		s.Opened = Before
		g := take(m, globalsAt, s, readVars(m, globalsAt))
		if g == nil || !g.isUnchanged(m, globalsAt) {
			t.Fatalf("%s: before the change: got %+v", name, g)
		}
		m.write(idAt, []byte{2}) // another reference to the id
		if !g.isUnchanged(m, globalsAt) {
			t.Errorf("%s: a reference to the id is taken for a change", name)
		}
		change(m)
		if g.isUnchanged(m, globalsAt) {
			t.Errorf("%s: it was not noticed", name)
		}
	}
}

// TestALookThatMayShowMoreIsNotKept, nor one that was overtaken by a change.
func TestALookThatMayShowMoreIsNotKept(t *testing.T) {
	m := newFakePHP()
	open := Session{Active, "abc", "PHPSESSID", "files", "", 0, Before}
	for name, s := range map[string]Session{
		"whether it was opened is not known": {Active, "abc", "PHPSESSID", "files", "", 0, NotKnown},
		"closed meanwhile":                   {None, "abc", "PHPSESSID", "files", "", 0, Before},
		"another id":                         {Active, "abd", "PHPSESSID", "files", "", 0, Before},
		"no id":                              {Active, "", "PHPSESSID", "files", "", 0, Before},
	} {
		if g := take(m, globalsAt, s, readVars(m, globalsAt)); g != nil {
			t.Errorf("%s: got %+v, want nothing", name, g)
		}
	}
	vars := readVars(m, globalsAt)
	if g := take(m, globalsAt, open, vars); g == nil || g.session != open {
		t.Errorf("got %+v, want %+v", g, open)
	}
	vars[0]++
	if g := take(m, globalsAt, open, vars); g != nil {
		t.Errorf("its variable has changed: got %+v, want nothing", g)
	}
}
