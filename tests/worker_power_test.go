package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// publicBinary is a copy of the program that every user may run.
func publicBinary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fpm-gate-public-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "fpm-gate")
	for _, err := range []error{os.Chmod(dir, 0o755), rig.CopyProgram(gateBinary, binary)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return binary
}

// TestAGateThatCannotTerminateSaysSo, beforehand and wherever an operator may look: once, and with what is missing. Then
// a script that is stuck goes on, and the next request has its turn.
func TestAGateThatCannotTerminateSaysSo(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	if _, err := os.Stat(phpworker.DefaultHelper); err == nil {
		t.Skip("a helper of this machine listens")
	}
	const remedy = "systemctl enable --now fpm-gate-helper.socket"
	for name, c := range map[string]struct {
		settings     string
		unprivileged bool
		says         string // what the texts start with; empty: nothing is wrong
		remedy       string
	}{
		"on_expiry without rights":  {`lock { on_expiry = "terminate" }`, true, `on_expiry = "terminate" cannot end scripts`, remedy},
		"on_abandon without rights": {`lock { on_abandon = "terminate" }`, true, `on_abandon = "terminate" cannot end scripts`, remedy},
		"a route without rights": {`route "x" {
    path      = ["/x"]
    on_expiry = "terminate"
  }`, true, `on_expiry = "terminate" cannot end scripts`, remedy},
		"workers that are not looked at": {"session { watch = \"none\" }\n  lock { on_expiry = \"terminate\" }", false,
			`on_expiry = "terminate" cannot end scripts`, `session { watch = "auto" }`},
		"with rights":         {`lock { on_expiry = "terminate" }`, false, "", ""},
		"nothing to be ended": {`lock { on_expiry = "abort" }`, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			block, admin := adminBlock(t)
			o := rig.GateOptions{Settings: c.settings, Config: block, Unprivileged: c.unprivileged}
			if c.unprivileged {
				o.Binary = publicBinary(t)
			}
			s := newStack(t, stackOptions{Gate: o})
			pages := map[string]string{
				"log": s.Gate.Log(), "locks": admin.get(t, "/locks"), "readyz": admin.get(t, "/readyz"),
			}
			for where, text := range pages {
				text = strings.ReplaceAll(text, `\"`, `"`)
				if got := strings.Count(text, "cannot end scripts"); got != min(len(c.says), 1) {
					t.Errorf("%s says %d times that scripts cannot be ended:\n%s", where, got, text)
				}
				if !strings.Contains(text, c.says) || !strings.Contains(text, c.remedy) {
					t.Errorf("%s has no %q with %q:\n%s", where, c.says, c.remedy, text)
				}
			}
			want := fmt.Sprintf(`fpm_gate_scripts_unterminable{gate="www"} %d`, min(len(c.says), 1))
			if got := admin.get(t, "/metrics"); !strings.Contains(got, want) {
				t.Errorf("there is no metric %s", want)
			}
		})
	}
}

// TestAStuckScriptGoesOnWhereRightsAreMissing, and the next request has its turn all the same.
func TestAStuckScriptGoesOnWhereRightsAreMissing(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{
		Binary: publicBinary(t), Unprivileged: true,
		Settings: `lock {
    max_wait  = "55s"
    expiry    = "1s"
    on_expiry = "terminate"
  }`,
	}})
	session := newSession()
	stuck := s.hold(t, session, "hold")
	s.get("/hello.php", session).mustBe(t, "hello\n")
	letGo(t, s.Rig, "hold")
	(<-stuck).mustBe(t, "last\n")
	awaitLog(t, s.Gate.Server, "script cannot be terminated, it goes on without its lock")
}

// TestCheckSaysThatScriptsCannotBeEnded, as the user that the gate runs as.
func TestCheckSaysThatScriptsCannotBeEnded(t *testing.T) {
	t.Parallel()
	p := newPool(t, "files", rig.PHPOptions{})
	const unprivileged = 65534
	for name, c := range map[string]struct {
		watch string
		user  uint32
		as    []string // what runs the program
		want  string   // empty: nothing
	}{
		"without rights":        {"auto", unprivileged, nil, `warning: on_expiry = "terminate" cannot end scripts of`},
		"with rights":           {"auto", 0, nil, ""},
		"looking at no workers": {"none", 0, nil, `on_expiry = "terminate" cannot end scripts with watch = "none"`},
		"as in a pod of packaging/kubernetes": {
			"auto", 0, []string{"setpriv", "--bounding-set", "-all,+sys_ptrace,+kill", "--no-new-privs"}, "",
		},
		"as in a pod without the patch": {
			"auto", 0, []string{"setpriv", "--bounding-set", "-all", "--no-new-privs"},
			`warning: on_expiry = "terminate" cannot end scripts of`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary := publicBinary(t)
			file := filepath.Join(filepath.Dir(binary), "gate.hcl")
			config := gateOf("www", rig.Addr{Network: "unix", Address: "/tmp/gate"}, fmt.Sprintf("address = %q", p.PHP.Addr),
				fmt.Sprintf("session { watch = %q }\n  lock { on_expiry = \"terminate\" }", c.watch))
			if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
			defer cancel()
			args := append(slices.Clone(c.as), binary, "check", "--config", file, "--probe")
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Dir, cmd.Env = "/", []string{raceOptions}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
			out, _ := cmd.CombinedOutput() // an unprivileged user cannot reach PHP-FPM in the rig's folder either
			if c.want == "" && !strings.Contains(string(out), "seen by a process with these rights: yes") {
				t.Errorf("got\n%s\nwant that it sees the workers", out)
			}
			if got := string(out); !strings.Contains(got, c.want) || c.want == "" && strings.Contains(got, "cannot end scripts") {
				t.Errorf("got\n%s\nwant %q in it", got, c.want)
			}
		})
	}
}
