package demo

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestCountConnsTellsAcceptedFromWaiting(t *testing.T) {
	const list = `Num       RefCount Protocol Flags    Type St Inode Path
00000000097d9547: 00000002 00000000 00010000 0001 01 4787485 /run/php.sock
000000006579fabc: 00000003 00000000 00000000 0001 03 4952207 /run/php.sock
000000006579fabd: 00000003 00000000 00000000 0001 03 4952208 /run/php.sock
000000006579fabe: 00000003 00000000 00000000 0001 02     0 /run/php.sock
000000006579fabf: 00000003 00000000 00000000 0001 03 4952209 /run/php.sock.other
0000000014738b71: 00000003 00000000 00000000 0001 03 4787194
`
	accepted, waiting, err := countConns(strings.NewReader(list), "/run/php.sock")
	if accepted != 2 || waiting != 1 || err != nil {
		t.Errorf("got %d accepted, %d waiting and error %v, want 2, 1 and none", accepted, waiting, err)
	}
}

// The kernel itself is the referee on what its list means.
func TestWorkersAreCountedByTheKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "php.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sd := &side{php: &rig.PHPFPM{Server: &rig.Server{Addr: rig.Addr{Network: "unix", Address: path}}}}
	check := func(when string, wantHeld, wantQueued int) {
		t.Helper()
		held, queued, err := sd.workers()
		if held != wantHeld || queued != wantQueued || err != nil {
			t.Errorf("%s: got %d held, %d queued and error %v, want %d, %d and none", when, held, queued, err, wantHeld, wantQueued)
		}
	}
	dial := func() net.Conn {
		t.Helper()
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	check("no connection has come", 0, 0)
	dial()
	dial()
	check("none has been accepted", 0, 2)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	check("one has been accepted", 1, 1)
	accepted.Close()
	check("its worker has closed", 0, 1)
}

func TestUntilTellsWhatItWaitsFor(t *testing.T) {
	sd := &side{php: &rig.PHPFPM{Server: &rig.Server{Addr: rig.Addr{Network: "unix", Address: "/nonexistent"}}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := sd.until(ctx, func(conns int) bool { return conns == 1 })
	if err == nil || !strings.Contains(err.Error(), "0 workers are held") {
		t.Errorf("got error %v, want one on 0 workers", err)
	}
	if err := sd.until(ctx, idle); err != nil {
		t.Errorf("what is so already: got error %v", err)
	}
}

func TestScriptsAreCountedByTheAccessLog(t *testing.T) {
	sd := &side{log: filepath.Join(t.TempDir(), "access.log")}
	log := "GET /fpm-ping? 200\nGET /work.php?ms=0 200\nGET /work.php?ms=500 200\nGET /work.php?ms=5000 200\nGET /work.php?ms=500 200\n"
	if err := os.WriteFile(sd.log, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := sd.scripts("/work.php?ms=500"); got != 2 || err != nil {
		t.Errorf("got %d and error %v, want 2", got, err)
	}
}
