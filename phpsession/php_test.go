package phpsession

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// A referee is real PHP behind FastCGI: what it takes for the session id is right.
type referee struct {
	normal, tight *php // tight has limits so low that short input meets them
	refusesNUL    bool // its files handler refuses ids with a NUL, as that of PHP 8.4 does
}

// Limits of the tight PHP. A Rules with these two is asked there.
const (
	tightVars    = 6
	tightNesting = 3
)

// newReferee starts PHP. It skips the test where there is none, except in CI.
func newReferee(tb testing.TB) *referee {
	tb.Helper()
	program, err := exec.LookPath("php-cgi")
	if err != nil {
		rigtest.Lack(tb, "php-cgi is not installed, which the rules are compared with (apt-get install php-cgi)")
	}
	ref := &referee{
		normal: startPHP(tb, program),
		tight: startPHP(tb, program,
			fmt.Sprint("max_input_vars=", tightVars), fmt.Sprint("max_input_nesting_level=", tightNesting)),
	}
	nul := ref.normal.ask(tb, question{name: "S", cookie: []byte("S=a%00"), useCookies: true, files: true})
	ref.refusesNUL = nul.verdict == "refused"
	return ref
}

// id returns what Rules.ID has to say. PHP knows one session.name only, so several are asked
// one after the other. It returns errUnnamed if PHP does not accept one of the names.
func (ref *referee) id(tb testing.TB, r *Rules, cookie, query []byte) (id []byte, ok bool, err error) {
	tb.Helper()
	p := ref.normal
	if r.MaxInputVars == tightVars {
		p = ref.tight
	}
	q := question{cookie: cookie, query: query, files: r.Files, depth: r.Depth, useCookies: true}
	names, err := ref.names(tb, p, r, cookie)
	if err != nil {
		return nil, false, err
	}
	for _, q.name = range names {
		if r.IDPattern != nil { // PHP has no rule for that: the application takes the id out of the value
			got := p.ask(tb, question{name: q.name, cookie: cookie, useCookies: true, value: true})
			if id, ok := r.part(got.id); got.verdict == "taken" && ok && r.Valid(id) {
				return id, true, nil
			}
			continue
		}
		// One name for both is PHP's own case: it is asked once, and combines the two itself.
		q.useQuery = len(r.Cookies) == 1 && !IsPattern(r.Cookies[0]) && len(r.Query) == 1 && r.Query[0] == q.name
		switch got := p.ask(tb, q); {
		case got.verdict == "unnamed":
			return nil, false, errUnnamed
		case got.verdict == "taken":
			return got.id, true, nil
		case q.useQuery:
			return nil, false, nil
		}
	}
	for _, q.name = range r.Query {
		q.useQuery, q.useCookies = true, slices.Contains(names, q.name)
		switch got := p.ask(tb, q); got.verdict {
		case "unnamed":
			return nil, false, errUnnamed
		case "taken":
			return got.id, true, nil
		}
	}
	return nil, false, nil
}

// names returns r.Cookies with the names of $_COOKIE that match in the place of each pattern.
func (ref *referee) names(tb testing.TB, p *php, r *Rules, cookie []byte) (names []string, err error) {
	tb.Helper()
	for _, name := range r.Cookies {
		if !IsPattern(name) {
			names = append(names, name)
			continue
		}
		got := p.ask(tb, question{pattern: name, name: "S", cookie: cookie})
		for _, match := range bytes.Split(got.id, []byte{0}) {
			_, notNumeric := strconv.ParseFloat(string(match), 64)
			switch {
			case len(match) == 0:
			case notNumeric == nil:
				return nil, errUnnamed // session_name() refuses a number
			case bytes.ContainsAny(match, "=,;.[ \t\r\n\v\f"): // session_name() of PHP 8.4 refuses it
				return nil, errUnnamed
			default:
				names = append(names, string(match))
			}
		}
	}
	return names, nil
}

var errUnnamed = errors.New("PHP does not accept the session.name")

// A php is one php-cgi process that serves FastCGI on a unix socket, and one kept connection to it.
type php struct {
	dir  string
	conn net.Conn
	in   *bufio.Reader
}

func startPHP(tb testing.TB, program string, settings ...string) *php {
	tb.Helper()
	p := &php{dir: tb.TempDir()}
	if err := os.WriteFile(filepath.Join(p.dir, "judge.php"), []byte(judge), 0o600); err != nil {
		tb.Fatal(err)
	}
	for depth, letters := range savePathLetters {
		if err := makeSavePath(filepath.Join(p.dir, fmt.Sprint("depth", depth)), depth, letters); err != nil {
			tb.Fatal(err)
		}
	}
	// Without its php.ini PHP has the defaults of its source, whatever the machine's owner likes.
	args := []string{"-n", "-b", filepath.Join(p.dir, "php.sock"), "-d", "display_errors=0", "-d", "log_errors=0"}
	for _, setting := range settings {
		args = append(args, "-d", setting)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PHP_FCGI_MAX_REQUESTS=0", "PHP_FCGI_CHILDREN=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if p.conn != nil {
			p.conn.Close()
		}
		cmd.Process.Kill()
		cmd.Wait() // says that it was killed
	})
	p.dial(tb)
	return p
}

// savePathLetters are the letters that ids may begin with at each depth of the save_path. PHP
// expects the folders to be there; all 4,096 of depth 2 would take longer than the tests.
var savePathLetters = []string{
	0: "",
	1: "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,-",
	2: "abc",
}

func makeSavePath(dir string, depth int, letters string) error {
	if err := os.Mkdir(dir, 0o700); err != nil || depth == 0 {
		return err
	}
	for _, letter := range letters {
		if err := makeSavePath(filepath.Join(dir, string(letter)), depth-1, letters); err != nil {
			return err
		}
	}
	return nil
}

func (p *php) dial(tb testing.TB) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("unix", filepath.Join(p.dir, "php.sock"))
		if err == nil {
			p.conn, p.in = conn, bufio.NewReader(conn)
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("php-cgi does not listen: %v", err)
		}
		time.Sleep(time.Millisecond) // a process is starting: nothing else tells us when
	}
}

// A question is one request, with the settings that its script makes before session_start().
type question struct {
	name                 string
	cookie, query        []byte
	useCookies, useQuery bool
	files                bool
	depth                int
	give                 []byte // an id that the application chooses itself
	pattern              string // asks for the names in $_COOKIE that match, with a NUL between
	value                bool   // asks for the string in $_COOKIE under the name
}

// An answer is what came of session_start(): "taken" from the request, "new", or "refused"; "unnamed" if
// session_name() refused the name.
type answer struct {
	verdict   string
	id        []byte
	setCookie []string
}

// judge is the script. The user handler takes any id; PHP asks it for a new one where it found none.
// The files handler makes its own, known by a length that no test sends. The id is the one that the
// handler gets: session_id() cuts it at the first NUL, so that is all that is known with files.
const judge = `<?php
if ($_SERVER['JUDGE_PATTERN'] !== '') {
	$names = array_filter(array_map('strval', array_keys($_COOKIE)),
		fn($name) => fnmatch($_SERVER['JUDGE_PATTERN'], $name, FNM_NOESCAPE));
	exit('taken ' . bin2hex(implode("\0", $names)));
}
if ($_SERVER['JUDGE_VALUE']) {
	$value = $_COOKIE[hex2bin($_SERVER['JUDGE_NAME'])] ?? null;
	exit(is_string($value) ? 'taken ' . bin2hex($value) : 'new');
}
class Anything implements SessionHandlerInterface, SessionIdInterface {
	public $new = false;
	public $id;
	function create_sid(): string { $this->new = true; return 'new'; }
	function open(string $path, string $name): bool { return true; }
	function close(): bool { return true; }
	function read(string $id): string { $this->id = $id; return ''; }
	function write(string $id, string $data): bool { return true; }
	function destroy(string $id): bool { return true; }
	function gc(int $max): int { return 0; }
}
session_name(hex2bin($_SERVER['JUDGE_NAME']));
if (session_name() !== hex2bin($_SERVER['JUDGE_NAME'])) {
	exit('unnamed');
}
ini_set('session.use_cookies', $_SERVER['JUDGE_USE_COOKIES']);
ini_set('session.use_only_cookies', $_SERVER['JUDGE_USE_QUERY'] ? '0' : '1');
ini_set('session.gc_probability', '0');
ini_set('session.sid_length', '201');
$handler = new Anything;
if ($_SERVER['JUDGE_SAVE_PATH'] === '') {
	session_set_save_handler($handler, false);
} else {
	ini_set('session.save_path', $_SERVER['JUDGE_SAVE_PATH']);
}
if ($_SERVER['JUDGE_GIVE'] !== '') {
	session_id(hex2bin($_SERVER['JUDGE_GIVE']));
}
$started = session_start();
$id = $handler->id ?? session_id();
if (!$started) {
	echo 'refused';
} elseif ($handler->new || strlen($id) === 201 && trim($id, '0..9a..f') === '') {
	echo 'new ', bin2hex($id);
} else {
	echo 'taken ', bin2hex($id);
}
if ($started) {
	session_destroy();
}
`

func (p *php) ask(tb testing.TB, q question) answer {
	tb.Helper()
	savePath := ""
	if q.files {
		savePath = fmt.Sprintf("%d;%s/depth%d", q.depth, p.dir, q.depth)
	}
	flag := map[bool]string{true: "1", false: "0"}
	head, body, err := p.exchange([][2]string{
		{"SCRIPT_FILENAME", filepath.Join(p.dir, "judge.php")},
		{"REQUEST_METHOD", "GET"},
		{"HTTP_COOKIE", string(q.cookie)},
		{"QUERY_STRING", string(q.query)},
		{"JUDGE_NAME", hex.EncodeToString([]byte(q.name))},
		{"JUDGE_USE_COOKIES", flag[q.useCookies]},
		{"JUDGE_USE_QUERY", flag[q.useQuery]},
		{"JUDGE_SAVE_PATH", savePath},
		{"JUDGE_GIVE", hex.EncodeToString(q.give)},
		{"JUDGE_PATTERN", q.pattern},
		{"JUDGE_VALUE", flag[q.value]},
	})
	if err != nil {
		tb.Fatalf("ask PHP about cookie %q, query %q: %v", q.cookie, q.query, err)
	}
	verdict, id, _ := strings.Cut(body, " ")
	got := answer{verdict: verdict}
	if got.id, err = hex.DecodeString(id); err != nil || !slices.Contains([]string{"taken", "new", "refused", "unnamed"}, verdict) {
		tb.Fatalf("PHP says %q to %+v", head+body, q)
	}
	// PHP 8.4 and later; config accepts no such name with any PHP.
	if verdict == "unnamed" && q.name != "" && !strings.ContainsAny(q.name, "=,;.[ \t\r\n\v\f") {
		tb.Fatalf("PHP does not accept the session.name %q", q.name)
	}
	for _, line := range strings.Split(head, "\r\n") {
		if value, ok := strings.CutPrefix(line, "Set-Cookie: "); ok {
			got.setCookie = append(got.setCookie, value)
		}
	}
	return got
}

// exchange sends one request that keeps the connection, and reads until its end request.
func (p *php) exchange(params [][2]string) (head, body string, err error) {
	var stream []byte
	for _, param := range params {
		for _, s := range param {
			stream = binary.BigEndian.AppendUint32(stream, uint32(len(s))|1<<31)
		}
		stream = append(append(stream, param[0]...), param[1]...)
	}
	if len(stream) > 0xffff {
		return "", "", fmt.Errorf("params of %d bytes do not fit into the one record that PHP reads them from", len(stream))
	}
	const beginRequest, endRequest, paramsRecord, stdin, stdout = 1, 3, 4, 5, 6
	var out bytes.Buffer
	for _, rec := range []struct {
		kind    byte
		content []byte
	}{
		{beginRequest, []byte{0, 1, 1, 0, 0, 0, 0, 0}}, // responder, keep conn
		{paramsRecord, stream}, {paramsRecord, nil}, {stdin, nil},
	} {
		out.Write([]byte{1, rec.kind, 0, 1, byte(len(rec.content) >> 8), byte(len(rec.content)), 0, 0})
		out.Write(rec.content)
	}
	p.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := p.conn.Write(out.Bytes()); err != nil {
		return "", "", err
	}
	var response []byte
	for {
		var header [8]byte
		if _, err := io.ReadFull(p.in, header[:]); err != nil {
			return "", "", err
		}
		length := int(binary.BigEndian.Uint16(header[4:]))
		content := make([]byte, length+int(header[6]))
		if _, err := io.ReadFull(p.in, content); err != nil {
			return "", "", err
		}
		switch header[1] {

		case stdout:
			response = append(response, content[:length]...)
		case endRequest:
			head, body, _ = strings.Cut(string(response), "\r\n\r\n")
			return head, body, nil
		}
	}
}
