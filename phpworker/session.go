package phpworker

import (
	"errors"
	"strings"
)

// psGlobals is PHP's struct php_ps_globals up to where the session was started. Its first 112 bytes are the same in PHP
// 7.4 to 8.5 on 64 bits, but for the kind of the name; the last two fields came with 8.3.
//
//	  8  char *session_name; since 8.5, zend_string *session_name
//	 16  zend_string *id
//	 80  ps_module *mod, whose first field is char *s_name
//	104  int session_status
//	112  zend_string *session_started_filename
//	120  uint32 session_started_lineno
const (
	offsetName    = 8
	offsetID      = 16
	offsetModule  = 80
	offsetStatus  = 104
	offsetFile    = 112
	offsetLine    = 120
	psGlobalsSize = 128
)

// Longer ones are not believed. A session whose id is longer is Unknown: visitors can send any id.
const (
	maxName    = 128
	maxID      = 1024
	maxHandler = 64
	maxPath    = 4096
)

// attempts is how often a session is read that changes while it is being read.
const attempts = 4

// readSession reads the session at the address of ps_globals. The error wraps ErrLayout if it does not look like one.
func readSession(m memory, addr uint64, v version) (Session, error) {
	var err error
	for range attempts {
		var s Session
		if s, err = readSessionOnce(m, addr, v); err == nil {
			return s, nil
		}
		if !errors.Is(err, errNotUnderstood) && !errors.Is(err, errUnmapped) {
			break
		}
	}
	if errors.Is(err, errNotUnderstood) || errors.Is(err, errUnmapped) {
		return Session{}, layoutError("PHP %s does not keep its sessions where PHP 7.4 to 8.5 do", v)
	}
	return Session{}, err
}

// readSessionOnce reads it once. PHP runs on meanwhile, and may free a string that is being read. The globals that
// point to it change with that, so they are read again at the end.
func readSessionOnce(m memory, addr uint64, v version) (s Session, err error) {
	var before, after [psGlobalsSize]byte
	if err := m.read(addr, before[:]); err != nil {
		return s, err
	}
	status := int32(native.Uint32(before[offsetStatus:]))
	if status < 0 || status > 2 {
		return s, errNotUnderstood
	}
	s.Status = Disabled + Status(status)
	if s.Name, err = sessionName(m, native.Uint64(before[offsetName:]), v); err != nil {
		return s, err
	}
	if s.Handler, err = handlerName(m, native.Uint64(before[offsetModule:])); err != nil {
		return s, err
	}
	id := native.Uint64(before[offsetID:])
	if id != 0 {
		switch s.ID, err = zendString(m, id, maxID); {
		case errors.Is(err, errTooLong):
			return Session{Name: s.Name, Handler: s.Handler}, nil
		case err != nil:
			return s, err
		}
	}
	file := native.Uint64(before[offsetFile:])
	if v.hasStarted() && file != 0 {
		if s.StartedFile, err = zendString(m, file, maxPath); err != nil && !errors.Is(err, errTooLong) {
			return s, err
		}
		s.StartedLine = int(native.Uint32(before[offsetLine:]))
	}
	if err := m.read(addr, after[:]); err != nil {
		return s, err
	}
	if before != after {
		return s, errNotUnderstood
	}
	return s, nil
}

// sessionName reads session.name, which is a C string up to PHP 8.4 and a zend_string since. With a version that is not
// known it may be either: neither looks like the other. PHP refuses names with the characters that end it in a cookie.
func sessionName(m memory, addr uint64, v version) (name string, err error) {
	if v.isKnown() && !v.namesAreStrings() {
		name, err = cString(m, addr, maxName)
	} else if name, err = zendString(m, addr, maxName); !isSessionName(name) && !v.isKnown() {
		name, err = cString(m, addr, maxName)
	}
	if errors.Is(err, errTooLong) || err == nil && !isSessionName(name) {
		return "", errNotUnderstood
	}
	return name, err
}

func isSessionName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("=,;", r)
	})
}

// handlerName reads the name of a session handler, which PHP has none of where save_handler is not known.
func handlerName(m memory, addr uint64) (string, error) {
	if addr == 0 {
		return "", nil
	}
	var b [8]byte
	if err := m.read(addr, b[:]); err != nil {
		return "", err
	}
	name, err := cString(m, native.Uint64(b[:]), maxHandler)
	if err == nil && (name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})) {
		err = errNotUnderstood
	}
	return name, err
}
