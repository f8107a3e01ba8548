package tests

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// whySettings are the settings of a gate that ends no script by itself while a test lasts.
func whySettings(watch string) string {
	return fmt.Sprintf("session {\n watch = %q\n}\n lock {\n max_wait = \"55s\"\n expiry = \"10m\"\n}", watch)
}

// stick has a script hang in a blocking read of a socket, with its session open, and returns what it reads from.
func (s *stack) stick(t *testing.T, session string) (stuck <-chan response, target string) {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	target = silent.Addr().String()
	stuck = s.begin(fmt.Sprintf("/stuck.php?how=read&mark=why&port=%d", silent.Addr().(*net.TCPAddr).Port), session)
	awaitMark(t, s.Rig, "why.started")
	return stuck, target
}

// TestWhyNamesWhatAScriptWaitsFor, with its worker and its session. Then its end frees the session, for good.
func TestWhyNamesWhatAScriptWaitsFor(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Settings: whySettings("auto")}})
	session := newSession()
	stuck, target := s.stick(t, session)
	next := s.begin("/count.php", session)
	admin.awaitWaiters(t, 1)

	key := admin.locks(t).Locks[0].Key
	var seen string
	eventually(t, "the script is seen to wait for "+target, func() bool {
		_, seen, _ = admin.run(t, "why", key[:8])
		return strings.Contains(seen, target)
	})
	for _, want := range []string{
		`(?m)^lock +` + key + `, held for `,
		`(?m)^request .*GET /stuck.php`,
		`(?m)^script +` + regexp.QuoteMeta(s.DocRoot) + `/stuck.php$`,
		`(?m)^worker +process \d+, PHP \d+\.\d+\.\d+.*, sleeping, CPU `,
		`(?m)^session +open, handler files`,
		`(?m)^waits +in p?poll for ` + regexp.QuoteMeta(target) + `$`,
		`(?m)^waiting +1, the first for `,
	} {
		if !regexp.MustCompile(want).MatchString(seen) {
			t.Errorf("got\n%s\nwant %s in it", seen, want)
		}
	}
	if json := admin.get(t, "/locks/"+key+"/why"); strings.Contains(json, session) || !strings.Contains(json, `"target":"`+target) {
		t.Errorf("got %s", json)
	}

	code, stdout, stderr := admin.run(t, "break", key, "--terminate")
	if code != 0 || !strings.HasPrefix(stdout, "its script has ended, with its worker (SIGTERM): "+key) {
		t.Errorf("got exit code %d, %q and %q", code, stdout, stderr)
	}
	(<-next).mustBe(t, "0\n") // what the stuck script had counted was not written
	if r := <-stuck; r.failure() == nil {
		t.Errorf("the stuck script has ended well: %q", r.body)
	}
	if log := s.Gate.Log(); !strings.Contains(log, "end of a script requested by an operator") {
		t.Error("the log does not name the operator's request")
	}
}

// TestBreakSaysByWhatAScriptHasEnded: here by PHP's time limit, as it sleeps.
func TestBreakSaysByWhatAScriptHasEnded(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Settings: whySettings("auto")}})
	stuck := s.begin("/stuck.php?how=sleep&mark=by", newSession())
	awaitMark(t, s.Rig, "by.started")
	key := admin.locks(t).Locks[0].Key
	code, stdout, stderr := admin.run(t, "break", key, "--terminate")
	if code != 0 || !strings.HasPrefix(stdout, "its script has ended, by PHP's time limit: "+key) {
		t.Errorf("got exit code %d, %q and %q", code, stdout, stderr)
	}
	if r := <-stuck; r.status != 500 {
		t.Errorf("the stuck request was answered %d %v, want 500", r.status, r.err)
	}
}

// TestWhyWithoutWorkers: where workers are not looked at, the answer has the reason, and nothing is ended.
func TestWhyWithoutWorkers(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Settings: whySettings("none")}})
	session := newSession()
	held := s.hold(t, session, "hold")
	key := admin.locks(t).Locks[0].Key
	const reason = `the gate does not look at PHP-FPM's workers`
	if code, stdout, stderr := admin.run(t, "why", key); code != 0 || !strings.Contains(stdout, "cannot be looked at: "+reason) {
		t.Errorf("got exit code %d, %q and %q", code, stdout, stderr)
	}
	if code, _, stderr := admin.run(t, "break", key, "--terminate"); code != 1 || !strings.Contains(stderr, reason) {
		t.Errorf("got exit code %d and %q", code, stderr)
	}
	if code, _, stderr := admin.run(t, "why", "abcdef01"); code != 1 || !strings.Contains(stderr, "no lock") {
		t.Errorf("without a lock: got exit code %d and %q", code, stderr)
	}
	if status, text, err := admin.ask("DELETE", "/locks/"+key+"?terminate=perhaps", ""); err != nil || status != 400 {
		t.Errorf("got status %d, %s, %v", status, text, err)
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
}
