package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/landlock"
)

// TestInside runs in the machine, where it may do what it likes. Its parts build upon each other.
func TestInside(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("TestUnderSystemd runs it, in a machine of its own")
	}
	prepare(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"install_starts_the_socket_and_the_service", testInstall},
		{"init_writes_a_config_that_is_served_as_it_is", testInit},
		{"the_commands_of_the_documentation_put_the_gate_before_a_site", testSite},
		{"and_so_do_those_for_a_new_one", testNewSite},
		{"the_sandbox_is_in_force", testSandbox},
		{"the_helper_sees_the_workers_with_two_capabilities", testHelper},
		{"the_gate_sees_and_ends_scripts_by_the_helper", testStuckScript},
		{"the_helper_can_be_turned_off", testNoHelper},
		{"reload_takes_a_config", testReload},
		{"a_wrong_config_fails_the_reload_and_the_running_one_stays", testWrongReload},
		{"a_new_socket_takes_a_restart_and_no_reload", testNewSocket},
		{"restarts_and_an_upgrade_under_load_lose_no_request", testUnderLoad},
		{"restarts_under_load_lose_no_request_of_kept_connections", testUnderLoadKept},
		{"restarts_of_PHP_FPM_under_load_lose_no_request", testPHPRestarts},
		{"restarts_of_PHP_FPM_in_pauses_kill_no_script", testPHPRestartsInPauses},
		{"a_restart_waits_for_no_script_and_a_session_does", testRestartBesideAScript},
		{"an_instance_hangs", hang},
		{"a_request_starts_a_stopped_service", testActivation},
		{"a_crash_is_followed_by_a_restart", testCrash},
		{"a_crash_of_the_process_that_serves_is_too", testCrashOfTheServingProcess},
		{"a_wrong_config_ends_the_start_for_good", testWrongStart},
		{"a_failure_that_lasts_is_tried_again_for_as_long_as_it_takes", testLastingFailure},
		{"a_socket_that_the_config_asks_for_and_systemd_has_not", testNoSocket},
		{"a_socket_that_the_config_does_not_ask_for_is_told", testUnusedSocket},
		{"an_instance_for_a_pool", testInstance},
		{"watching_sessions_takes_the_right_that_the_documentation_gives", testWatching},
		{"what_hangs_is_restarted_by_the_watchdog", testWatchdog},
		{"an_upgrade_with_a_wrong_config_leaves_the_old_one_running", testUpgradeWrong},
		{"an_upgrade_with_secrets_in_the_environment_restarts_all", testUpgradeWithSecrets},
		{"what_was_removed_and_is_installed_again_runs", testRemoveAndInstall},
		{"remove_stops_all_and_keeps_the_config", testRemove},
		{"purge_leaves_nothing", testPurge},
	} {
		if !t.Run(part.name, part.test) {
			return // what comes next stands on it
		}
	}
}

const (
	configPath = "/etc/fpm-gate/fpm-gate.hcl"
	sitePath   = "/etc/nginx/sites-available/default"
	service    = "fpm-gate.service"
	socket     = "fpm-gate.socket"
)

// prepare makes a site with nginx and PHP-FPM as Debian's packages have it, before fpm-gate is there.
func prepare(t *testing.T) {
	t.Helper()
	_ = os.Remove("/usr/sbin/policy-rc.d")     // images of build machines forbid packages to start anything
	write(t, "/var/lib/dpkg/statoverride", "") // it names users that this machine does not have
	matches, err := filepath.Glob("/usr/lib/systemd/system/php*-fpm.service")
	if err != nil || len(matches) == 0 {
		t.Fatalf("there is no unit of PHP-FPM: %v", err)
	}
	php := filepath.Base(matches[len(matches)-1])
	poolSocket := "/run/php/" + strings.TrimSuffix(php, ".service") + ".sock"
	mustDo(t, "sh", "-c", "rm -f /etc/nginx/sites-enabled/* /etc/nginx/sites-available/*")
	write(t, sitePath, fmt.Sprintf(`server {
	listen 127.0.0.1:80 backlog=4096;
	root /var/www/html;
	location ~ \.php$ {
		include snippets/fastcgi-php.conf;
		fastcgi_pass unix:%s;
	}
}
`, poolSocket))
	mustDo(t, "ln", "-s", sitePath, "/etc/nginx/sites-enabled/")
	write(t, "/var/www/html/lock.php", `<?php echo $_SERVER['FPM_GATE_LOCK'] ?? 'no gate';`)
	write(t, "/var/www/html/count.php", `<?php session_start(); echo $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;`)
	mustDo(t, "install", "-d", "-m", "1733", "/var/lib/php/sessions")
	mustDo(t, "systemctl", "start", php, "nginx")
	if got, want := get(t, "/lock.php", ""), "no gate"; got != want {
		t.Fatalf("before all: got %q, want %q", got, want)
	}
}

func testInstall(t *testing.T) {
	install(t)
	for _, unit := range []string{service, socket} {
		if got := state(t, unit); got != "active" {
			t.Errorf("%s: got %s, want active", unit, got)
		}
		if got := strings.TrimSpace(output("systemctl", "is-enabled", unit)); got != "enabled" {
			t.Errorf("%s: got %s, want enabled", unit, got)
		}
	}
	if got, want := strings.TrimSpace(mustDo(t, "stat", "-c", "%U:%G %a", "/run/fpm-gate/www.sock")), "root:www-data 660"; got != want {
		t.Errorf("the socket: got %s, want %s", got, want)
	}
	if got, want := strings.TrimSpace(mustDo(t, "stat", "-c", "%U:%G %a", "/run/fpm-gate")), "fpm-gate:fpm-gate 755"; got != want {
		t.Errorf("its folder: got %s, want %s", got, want)
	}
	if got, want := strings.TrimSpace(mustDo(t, "stat", "-c", "%U:%G %a", "/run/fpm-gate/admin.sock")), "fpm-gate:fpm-gate 660"; got != want {
		t.Errorf("the socket of the admin: got %s, want %s", got, want)
	}
	mustDo(t, "fpm-gate", "locks")
	if got := mustDo(t, "systemd-analyze", "verify", "--man=no", service, socket, "fpm-gate@shop.service", "fpm-gate@shop.socket"); got != "" {
		t.Errorf("systemd-analyze verify: got %s, want nothing", got)
	}
	if got := mustDo(t, "dpkg", "--verify", "fpm-gate"); got != "" {
		t.Errorf("dpkg --verify: got %s, want nothing", got)
	}
	if got, want := mustDo(t, "fpm-gate", "version"), "fpm-gate "+packageVersion; !strings.HasPrefix(got, want) {
		t.Errorf("version: got %s, want %s", got, want)
	}
	if got, want := show(t, service, "StatusText"), "gates: 1, connections: 0"; got != want {
		t.Errorf("status: got %q, want %q", got, want)
	}
}

// testSite does what docs/SERVICE.md says, to the letter, for a site that is there already.
func testSite(t *testing.T) {
	if got, want := get(t, "/lock.php", ""), "no gate"; got != want {
		t.Errorf("after the install alone: got %q, want %q: it must change nothing", got, want)
	}
	for _, command := range commandsWith(t, "/etc/nginx/sites-available/default|nginx -t") {
		if !strings.HasPrefix(command, "cp ") {
			mustDo(t, "sh", "-c", command)
		}
	}
	// nginx's old workers go on for a moment after a reload.
	eventually(t, "requests pass the gate", func() bool {
		return get(t, "/lock.php", "") == "none" && get(t, "/lock.php", "one") == "held"
	})
}

// testNewSite does so where there is no site yet.
func testNewSite(t *testing.T) {
	said := ""
	for _, command := range commandsWith(t, "examples/nginx-site.conf|index.php|systemctl restart nginx|curl ") {
		if !strings.HasPrefix(command, "apt ") { // that was testInstall
			said = mustDo(t, "sh", "-c", command)
		}
	}
	if !strings.HasSuffix(said, "held\n") {
		t.Errorf("curl: got %q, want held", said)
	}
}

// testSandbox asks the kernel, not the unit file.
func testSandbox(t *testing.T) {
	pid := mainPID(t, service)
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	for field, want := range map[string]string{
		"NoNewPrivs": "1",
		"Seccomp":    "2", // a filter
		"CapEff":     "0000000000000000",
		"CapBnd":     "0000000000000000",
		"CapAmb":     "0000000000000000",
	} {
		if got := regexp.MustCompile(field + `:\s*(\S+)`).FindStringSubmatch(status); len(got) < 2 || got[1] != want {
			t.Errorf("%s: got %q, want %s", field, got, want)
		}
	}
	if got, want := strings.TrimSpace(mustDo(t, "stat", "-c", "%U", fmt.Sprintf("/proc/%d", pid))), "fpm-gate"; got != want {
		t.Errorf("it runs as %s, want %s", got, want)
	}
	for _, dir := range []string{"/usr", "/etc", "/var"} {
		out := output("nsenter", "--target", strconv.Itoa(pid), "--mount", "--root", "touch", dir+"/written")
		if !strings.Contains(out, "Read-only file system") {
			t.Errorf("writing to %s: got %q, want that it is read-only", dir, out)
		}
	}
	if _, err := landlock.Version(); err != nil {
		t.Logf("the kernel cannot confine a process: %v", err)
	} else {
		awaitJournal(t, service, "this process can open only what its config names")
	}
	if exposure := exposureOf(mustDo(t, "systemd-analyze", "security", "--no-pager", service)); exposure < 0 || exposure > maxExposure {
		t.Errorf("systemd-analyze security: got %.1f, want at most %.1f", exposure, maxExposure)
	}
}

func testReload(t *testing.T) {
	pid := mainPID(t, service)
	shipped := read(t, configPath)
	write(t, configPath, shipped+strings.NewReplacer(`"www"`, `"more"`, "systemd:www", "unix:/run/fpm-gate/more.sock").Replace(smallConfig))
	mustDo(t, "systemctl", "reload", service)
	eventually(t, "the new gate listens", func() bool { return exists("/run/fpm-gate/more.sock") })
	eventually(t, "systemd knows", func() bool { return strings.HasPrefix(show(t, service, "StatusText"), "gates: 2") })
	if got := strings.TrimSpace(mustDo(t, "stat", "-c", "%U:%G %a", "/run/fpm-gate/more.sock")); got != "fpm-gate:www-data 660" {
		t.Errorf("listen_group in the sandbox: got %s, want fpm-gate:www-data 660", got)
	}
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "reload", service)
	eventually(t, "the gate is gone again", func() bool { return !exists("/run/fpm-gate/more.sock") })
	if got := mainPID(t, service); got != pid {
		t.Errorf("got process %d, want %d: a reload is no restart", got, pid)
	}
}

func testWrongReload(t *testing.T) {
	pid := mainPID(t, service)
	shipped := read(t, configPath)
	write(t, configPath, strings.Replace(shipped, "lock {", "lock {\n max_wait = \"-1s\"", 1))
	if err := exec.Command("systemctl", "reload", service).Run(); err == nil {
		t.Error("systemctl reload: got success, want that it fails")
	}
	awaitJournal(t, service, "max_wait")
	// A signal that is sent directly has no check before it.
	mustDo(t, "systemctl", "kill", "--kill-who=main", "--signal=HUP", service)
	eventually(t, "systemd knows that the config is invalid", func() bool {
		return strings.Contains(show(t, service, "StatusText"), "config file invalid")
	})
	awaitJournal(t, service, "keeping the running one", "-p", "err")
	if got, want := get(t, "/lock.php", "one"), "held"; got != want || mainPID(t, service) != pid {
		t.Errorf("got %q of process %d, want %q of %d", got, mainPID(t, service), want, pid)
	}
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "reload", service)
	eventually(t, "all is well again", func() bool { return !strings.Contains(show(t, service, "StatusText"), "wrong") })
}

func testNewSocket(t *testing.T) {
	shipped := read(t, configPath)
	write(t, configPath, shipped+strings.NewReplacer(`"www"`, `"shop"`, "systemd:www", "systemd:shop").Replace(smallConfig))
	_ = exec.Command("systemctl", "reload", service).Run()
	awaitJournal(t, service, `listen on systemd:shop: systemd has passed no socket of that name; it has passed \"www\"`)
	if got, want := get(t, "/lock.php", "one"), "held"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	const shop, dropIn = "/etc/systemd/system/fpm-gate-shop.socket", "/etc/systemd/system/fpm-gate.service.d/shop.conf"
	write(t, shop, socketUnit)
	write(t, dropIn, "[Service]\nSockets=fpm-gate.socket fpm-gate-shop.socket\n")
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "restart", service)
	if got, want := show(t, service, "StatusText"), "gates: 2"; !strings.HasPrefix(got, want) {
		t.Errorf("status: got %q, want %s", got, want)
	}
	if got, want := strings.TrimSpace(mustDo(t, "stat", "-c", "%U:%G %a", "/run/fpm-gate/shop.sock")), "root:www-data 660"; got != want {
		t.Errorf("the new socket: got %s, want %s", got, want)
	}
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "stop", "fpm-gate-shop.socket", service)
	mustDo(t, "rm", "-r", shop, filepath.Dir(dropIn))
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "start", socket, service)
}

// socketUnit is the socket unit of docs/SERVICE.md.
const socketUnit = `[Socket]
ListenStream=/run/fpm-gate/shop.sock
FileDescriptorName=shop
SocketGroup=www-data
SocketMode=0660
Service=fpm-gate.service
`

func testActivation(t *testing.T) {
	mustDo(t, "systemctl", "stop", service)
	if got, want := show(t, service, "Result")+" "+show(t, service, "ExecMainStatus"), "success 0"; got != want {
		t.Errorf("stop: got %s, want %s", got, want)
	}
	if got := state(t, service); got != "inactive" || !exists("/run/fpm-gate/www.sock") {
		t.Errorf("got the service %s and the socket there %v, want it inactive and there", got, exists("/run/fpm-gate/www.sock"))
	}
	if got, want := get(t, "/lock.php", "one"), "held"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The gate serves a moment before systemd has its notice.
	eventually(t, "the service is active", func() bool { return state(t, service) == "active" })
}

// testUpgradeWithSecrets upgrades while the configs take secrets from files that root alone may read, as docs/SERVICE.md
// advises: by each package's scripts, and of an instance too.
func testUpgradeWithSecrets(t *testing.T) {
	shipped := read(t, configPath)
	const instance = "fpm-gate@more.service"
	secret := "memcached {\n servers = [\"127.0.0.1:1\"]\n secret = env(\"FPM_GATE_SECRET\")\n}\n"
	write(t, "/etc/fpm-gate/more.hcl", secret+strings.Replace(smallConfig, "systemd:www", "unix:/run/fpm-gate/more.sock", 1))
	write(t, configPath, secret+shipped)
	for _, name := range []string{"fpm-gate", "more"} {
		write(t, "/etc/fpm-gate/"+name+".env", "FPM_GATE_SECRET=only root may read it\n")
		mustDo(t, "chmod", "0600", "/etc/fpm-gate/"+name+".env")
	}
	mustDo(t, "systemctl", "restart", service, instance)
	for name, command := range map[string][]string{"deb": installCommand(t), "rpm": {"sh", "/lab/postun", "1"}} {
		one, more := mainPID(t, service), mainPID(t, instance)
		out := mustDo(t, command[0], command[1:]...)
		if mainPID(t, service) == one || mainPID(t, instance) == more {
			t.Errorf("%s: the upgrade has not restarted both:\n%s", name, out)
		}
		if got, want := get(t, "/lock.php", "one"), "held"; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	one, more := mainPID(t, service), mainPID(t, instance)
	write(t, "/etc/fpm-gate/more.env", "") // what it needs is gone
	out := mustDo(t, "sh", "/lab/postun", "1")
	if mainPID(t, service) == one || mainPID(t, instance) != more || !strings.Contains(out, instance+" goes on with the old program") {
		t.Errorf("rpm, without the secret of the instance: got %s", out)
	}
	mustDo(t, "systemctl", "stop", instance)
	mustDo(t, "rm", "/etc/fpm-gate/more.hcl", "/etc/fpm-gate/more.env", "/etc/fpm-gate/fpm-gate.env")
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "restart", service)
}

// testRemoveAndInstall removes the package and installs it again, and has a removal fail after it has stopped all.
func testRemoveAndInstall(t *testing.T) {
	write(t, "/etc/fpm-gate/again.hcl", strings.NewReplacer(`"www"`, `"again"`, "systemd:www", "systemd:again").Replace(smallConfig))
	mustDo(t, "systemctl", "enable", "--now", "fpm-gate@again.socket", "fpm-gate@again.service")
	all := []string{socket, service, "fpm-gate@again.socket", "fpm-gate@again.service"}
	for name, removal := range map[string]func(){
		"remove": func() { mustDo(t, "dpkg", "--no-triggers", "--remove", "fpm-gate"); install(t) },
		"abort-remove": func() {
			mustDo(t, "/var/lib/dpkg/info/fpm-gate.prerm", "remove")
			mustDo(t, "env", "DPKG_MAINTSCRIPT_PACKAGE=fpm-gate", "/var/lib/dpkg/info/fpm-gate.postinst", "abort-remove")
		},
	} {
		removal()
		for _, unit := range all {
			if got := state(t, unit); got != "active" {
				t.Errorf("after %s and install, %s: got %s, want active", name, unit, got)
			}
		}
		if got, want := get(t, "/lock.php", "one"), "held"; got != want {
			t.Errorf("after %s and install: got %q, want %q", name, got, want)
		}
	}
	mustDo(t, "systemctl", "disable", "--now", "fpm-gate@again.socket", "fpm-gate@again.service")
	install(t)
	for _, unit := range all[2:] {
		if got := state(t, unit); got != "inactive" {
			t.Errorf("%s, which is disabled: got %s, want inactive", unit, got)
		}
	}
	mustDo(t, "rm", "/etc/fpm-gate/again.hcl")
}

func testUnusedSocket(t *testing.T) {
	shipped := read(t, configPath)
	defer func() {
		write(t, configPath, shipped)
		mustDo(t, "systemctl", "restart", service)
	}()
	write(t, configPath, strings.Replace(smallConfig, "systemd:www", "unix:/run/fpm-gate/other.sock", 1))
	mustDo(t, "systemctl", "restart", service)
	awaitJournal(t, service, "unused socket from systemd", "-p", "warning")
	write(t, configPath, strings.Replace(smallConfig, "systemd:www", "unix:/run/fpm-gate/www.sock", 1))
	mustDo(t, "systemctl", "kill", "--kill-who=main", "--signal=HUP", service)
	awaitJournal(t, service, `set listen = \"systemd:www\"`)
}

func testInstance(t *testing.T) {
	// Only root may read the environment, as docs/SERVICE.md has it for secrets.
	write(t, "/etc/fpm-gate/shop.env", "SHOP_LISTEN=systemd:shop\n")
	mustDo(t, "chmod", "0600", "/etc/fpm-gate/shop.env")
	write(t, "/etc/fpm-gate/shop.hcl", strings.NewReplacer(`"www"`, `"shop"`, `"systemd:www"`, `env("SHOP_LISTEN")`).Replace(smallConfig))
	mustDo(t, "systemctl", "enable", "fpm-gate@shop.service")
	if got := strings.TrimSpace(output("systemctl", "is-enabled", "fpm-gate@shop.socket")); got != "enabled" {
		t.Errorf("its socket: got %s, want enabled with it", got)
	}
	mustDo(t, "systemctl", "disable", "fpm-gate@shop.service")
	mustDo(t, "systemctl", "start", "fpm-gate@shop.socket")
	mustDo(t, "sed", "-i", "s|/run/fpm-gate/www.sock|/run/fpm-gate/shop.sock|", sitePath)
	mustDo(t, "systemctl", "reload", "nginx")
	eventually(t, "its requests start the instance", func() bool {
		return get(t, "/lock.php", "one") == "held" && state(t, "fpm-gate@shop.service") == "active"
	})
	mustDo(t, "sed", "-i", "s|/run/fpm-gate/shop.sock|/run/fpm-gate/www.sock|", sitePath)
	mustDo(t, "systemctl", "restart", "nginx") // a reload would leave its old workers for a moment
	mustDo(t, "systemctl", "stop", "fpm-gate@shop.service", "fpm-gate@shop.socket")
	if !exists("/run/fpm-gate/www.sock") {
		t.Error("the socket of the other one went with it")
	}
}

// testWatching gives the gate the right to watch PHP's session files, as docs/SERVICE.md says. A script that closes its
// session then does not keep the next one waiting, which without the watch would be sent away after max_wait.
func testWatching(t *testing.T) {
	const sessions, letGo = "/var/lib/php/sessions", "/var/www/html/let-go"
	shipped := read(t, configPath)
	write(t, configPath, strings.Replace(smallConfig, "upstream {", "session {\n handler = \"files\"\n save_path = \""+sessions+"\"\n}\n upstream {", 1))
	out := mustDo(t, "setpriv", "--reuid=fpm-gate", "--regid=fpm-gate", "--clear-groups", "fpm-gate", "check", "--config", configPath)
	if !strings.Contains(out, sessions) {
		t.Errorf("check does not say that it may not watch:\n%s", out)
	}
	override := commandsWith(t, "dpkg-statoverride")
	mustDo(t, "sh", "-c", override[len(override)-1])
	mustDo(t, "systemctl", "restart", service)

	write(t, "/var/www/html/close.php", `<?php session_start(); session_write_close(); touch('/run/php/closed');
for ($i = 0; $i < 600 && !file_exists('`+letGo+`'); $i++) { usleep(50000); clearstatcache(); } echo 'let go';`)
	closed := make(chan string, 1)
	go func() {
		body, err := ask("/close.php", "watched")
		closed <- fmt.Sprint(body, err)
	}()
	eventually(t, "the script has closed its session", func() bool { return exists("/run/php/closed") })
	if got, want := get(t, "/lock.php", "watched"), "held"; got != want {
		t.Errorf("while the script runs on: got %q, want %q", got, want)
	}
	write(t, letGo, "")
	if got, want := <-closed, "let go<nil>"; got != want {
		t.Errorf("the script: got %q, want %q", got, want)
	}
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "restart", service)
}

func testUpgradeWrong(t *testing.T) {
	pid, instance := mainPID(t, service), mainPID(t, hanging)
	shipped := read(t, configPath)
	write(t, configPath, "gate \"www\" {}\n")
	command := installCommand(t)
	out := mustDo(t, command[0], command[1:]...)
	if !strings.Contains(out, "goes on with the old program") {
		t.Errorf("the upgrade does not say that the config is wrong:\n%s", out)
	}
	if got, want := get(t, "/lock.php", "one"), "held"; got != want || mainPID(t, service) != pid {
		t.Errorf("got %q of process %d, want %q of %d", got, mainPID(t, service), want, pid)
	}
	awaitOther(t, hanging, instance) // whose config is right
	write(t, configPath, shipped)
}

func testRemove(t *testing.T) {
	mustDo(t, "dpkg", "--no-triggers", "--remove", "fpm-gate")
	for _, unit := range []string{service, socket, hanging} {
		if got := state(t, unit); got != "inactive" {
			t.Errorf("%s: got %s, want inactive", unit, got)
		}
	}
	if exists("/run/fpm-gate") || !exists(configPath) {
		t.Errorf("got /run/fpm-gate %v and the config %v, want it gone and the config kept", exists("/run/fpm-gate"), exists(configPath))
	}
}

func testPurge(t *testing.T) {
	mustDo(t, "dpkg", "--no-triggers", "--purge", "fpm-gate")
	found := mustDo(t, "find", "/etc", "/var", "/run", "/usr/bin", "/usr/lib/systemd", "/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d",
		"/usr/share/doc", "/usr/share/man", "/usr/share/bash-completion", "/usr/share/zsh", "/usr/share/fish", "-xdev", "-name", "*fpm-gate*")
	if found != "" {
		t.Errorf("these are left:\n%s", found)
	}
	if got := output("systemctl", "list-unit-files", "--no-legend", "fpm-gate*"); got != "" {
		t.Errorf("systemd still knows %s", got)
	}
}

// smallConfig is a gate before the same PHP-FPM as the shipped one.
const smallConfig = `gate "www" {
  listen       = "systemd:www"
  listen_group = "www-data"
  upstream { address = "unix:/run/php/php-fpm.sock" }
}
`

// install installs the package.
func install(t *testing.T) {
	t.Helper()
	command := installCommand(t)
	mustDo(t, command[0], command[1:]...)
}

// installCommand installs the package, or upgrades to it. Triggers would have man-db read all pages of the machine.
func installCommand(t *testing.T) []string {
	t.Helper()
	return []string{"dpkg", "--force-unsafe-io", "--no-triggers", "--install", onlyFile(t, "/lab", "deb")}
}
