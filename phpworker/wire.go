package phpworker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// A gate and its helper exchange packets over a unix socket of type SOCK_SEQPACKET. Each connection is about one
// worker. A request of the gate is a byte for what it wants, then the session's id where that matters. The first is
// requestFind and carries the upstream connection itself (SCM_RIGHTS), or it is requestReady and the only one. An
// answer is answerOK and JSON, answerSame, or answerError, the reason's word, a space and a text. Answers come in the
// order of the requests. That to requestAwait comes when the session has changed, or when the next request has come.
const (
	requestFind      = 'f' // followed by protocolVersion; answer: a foundAnswer
	requestReady     = 'h' // answer: nothing, or what the helper lacks
	requestSession   = 's' // answer: a Session
	requestAwait     = 'w' // followed by the milliseconds of the first pause; answer: nothing, or answerSame
	requestRest      = 'r' // ends requestAwait, and has no answer of its own
	requestActivity  = 'a' // answer: an Activity
	requestInterrupt = 'i' // followed by the session's id, or nothing
	requestTerminate = 't' // likewise

	answerOK    = '+'
	answerError = '-'
	answerSame  = '=' // to requestSession, and to requestAwait: as the last answer to requestSession on this connection
)

// protocolVersion changes with anything above that the other side could not take for what it is. Gate and helper are of
// the same package, but an upgrade does not restart both at the same moment: each must work with the version before. A
// helper that does not know requestReady or requestAwait refuses the first, and its foundAnswer has no Awaits.
const protocolVersion = "1"

// maxPacket is more than the longest packet has: a path, an id, and what JSON makes of them.
const maxPacket = 64 << 10

// foundAnswer is the answer to requestFind.
type foundAnswer struct {
	PID    int
	Awaits bool // the helper knows requestAwait
}

// reasons are the words for the package's errors.
var reasons = []struct {
	word string
	err  error
}{
	{"gone", ErrGone},
	{"waiting", ErrWaiting},
	{"busy", ErrBusy},
	{"session", ErrSession},
	{"no_kill", ErrNoKill}, // before what it wraps; it comes in no answer but that to requestReady
	{"rights", ErrRights},
	{"other_host", ErrOtherHost},
	{"namespace", ErrNamespace},
	{"program", ErrProgram},
	{"thread_safe", ErrThreadSafe},
	{"layout", ErrLayout},
	{"helper", ErrHelper},
}

// Reason returns one word for an error of this package, for metrics and logs: gone, waiting, busy, session, no_kill,
// rights, other_host, namespace, program, thread_safe, layout or helper; other for any other error, and "" for nil.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "other"
}

// appendError appends the answer for a request that failed.
func appendError(b []byte, err error) []byte {
	b = append(b, answerError)
	b = append(b, Reason(err)...)
	b = append(b, ' ')
	text := err.Error()
	return append(b, text[:min(len(text), maxText)]...)
}

// maxText bounds the text of an error.
const maxText = 1024

// parseAnswer parses the answer to a request into v, which may be nil. It trusts the helper with nothing but its word.
func parseAnswer(b []byte, v any) error {
	switch {
	case len(b) == 0:
		return errors.Join(ErrHelper, errNoAnswer)
	case b[0] == answerOK && v == nil:
		return nil
	case b[0] == answerOK:
		if err := json.Unmarshal(b[1:], v); err != nil {
			return fmt.Errorf("%w: its answer makes no sense: %w", ErrHelper, err)
		}
		return nil
	case b[0] == answerError:
		return parseError(string(b[1:]))
	}
	return fmt.Errorf("%w: its answer makes no sense; is it of another version?", ErrHelper)
}

var errNoAnswer = errors.New("it has closed the connection; its log says why")

func parseError(s string) error {
	word, text, _ := strings.Cut(s, " ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text[:min(len(text), maxText)])
	for _, r := range reasons {
		if r.word == word {
			return &helperError{text, r.err}
		}
	}
	return fmt.Errorf("%w: %s", ErrHelper, text)
}

// helperError is an error of the helper's own work. Its text was made there.
type helperError struct {
	text string
	kind error
}

func (e *helperError) Error() string { return e.text }
func (e *helperError) Unwrap() error { return e.kind }
