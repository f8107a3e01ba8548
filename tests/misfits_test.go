package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestAGateWithoutSessionsReportsWhatItSees, once, with the names of cookies and the application that fits, wherever an
// operator may look; and never a value.
func TestAGateWithoutSessionsReportsWhatItSees(t *testing.T) {
	for name, c := range map[string]struct {
		session, cookie string
		requests        int
		kind            string
		says            []string
	}{
		"a name that looks like a session's": {"", "wp_woocommerce_session_0a1b=SecretOfAVisitor1", 20, "cookie_name",
			[]string{"wp_woocommerce_session_0a1b", `application = "woocommerce"`}},
		"another name": {"", "PrestaShop-0123456789abcdef0123456789abcdef=SecretOfAVisitor2; theme=dark", 110, "no_session",
			[]string{"PrestaShop-0123456789abcdef0123456789abcdef", "theme", `application = "prestashop"`}},
		"a pattern that no value matches": {`session { id_pattern = "^id=([a-z]+)" }`, "PHPSESSID=SecretOfAVisitor3", 20, "cookie_text",
			[]string{"PHPSESSID", "id_pattern must match"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			block, admin := adminBlock(t)
			s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: c.session, Config: block}})
			for range c.requests {
				q := request{path: "/info.php?session=0", header: map[string]string{"Cookie": c.cookie}}
				if got := s.info(t, q).Gate["FPM_GATE_LOCK"]; got != "none" {
					t.Fatalf("got lock %q, want none", got)
				}
			}
			pages := map[string]string{
				"log": s.Gate.Log(), "locks": admin.get(t, "/locks"), "readyz": admin.get(t, "/readyz"),
			}
			for where, text := range pages {
				text = strings.ReplaceAll(text, `\"`, `"`)
				for _, part := range c.says {
					if n := strings.Count(text, part); n != 1 {
						t.Errorf("%s: %d times %q, want once:\n%s", where, n, part, text)
					}
				}
				if strings.Contains(text, sessionPrefix) {
					t.Errorf("%s shows the value of a cookie", where)
				}
			}
			if want := fmt.Sprintf(`fpm_gate_session_misfit{gate="www",kind=%q} 1`, c.kind); !strings.Contains(admin.get(t, "/metrics"), want) {
				t.Errorf("there is no metric %s", want)
			}
		})
	}
}

// TestInitNamesTheFilesThatItMayNotRead: as a user who is not root.
func TestInitNamesTheFilesThatItMayNotRead(t *testing.T) {
	t.Parallel()
	rigtest.NeedRoot(t, "the command is run as another user")
	root, err := os.MkdirTemp("", "init-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for file, text := range map[string]string{
		"etc/php/8.2/fpm/pool.d/www.conf":  "[www]\nlisten = 9000\n",
		"etc/php/8.2/fpm/pool.d/shop.conf": "[shop]\nlisten = 9001\n",
		"etc/php/8.2/fpm/php.ini":          "session.name = X\n",
		"etc/nginx/nginx.conf":             "http { include /etc/nginx/sites-enabled/*; }\n",
		"etc/nginx/sites-enabled/secret":   "server { root /srv; }\n",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
	}
	closed := []string{"etc/php/8.2/fpm/pool.d/shop.conf", "etc/php/8.2/fpm/php.ini", "etc/nginx/sites-enabled/secret"}
	for _, file := range closed {
		if err := os.Chmod(filepath.Join(root, file), 0); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(root, "fpm-gate") // which no user may run
	if err := rig.CopyProgram(gateBinary, program); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{root, filepath.Join(root, "etc")} {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const unprivileged = 65534
	cmd := exec.CommandContext(t.Context(), program, "init", "--print", "--root", root)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unprivileged, Gid: unprivileged}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range closed {
		want := fmt.Sprintf("cannot read %s: permission denied; run init as root", filepath.Join(root, file))
		if n := strings.Count(string(out), want); n != 1 {
			t.Errorf("%d times %q, want once:\n%s", n, want, out)
		}
	}
	if !strings.Contains(string(out), `gate "www"`) {
		t.Errorf("the pool that can be read has no gate:\n%s", out)
	}
}
