package systemd

import (
	"os"
	"strings"
	"testing"
)

// testInit has fpm-gate init write a config on the machine as its packages have left it, which is served without an
// edit, and changes nginx as its diff says. All is as before when it ends.
func testInit(t *testing.T) {
	shipped, site := read(t, configPath), read(t, sitePath)
	t.Cleanup(func() {
		write(t, configPath, shipped)
		write(t, sitePath, site)
		_ = os.Remove(configPath + ".old")
		mustDo(t, "systemctl", "reload", service, "nginx")
		eventually(t, "no gate is before the site", func() bool { return get(t, "/lock.php", "one") == "no gate" })
	})
	if said := output("sh", "-c", "fpm-gate init < /dev/null"); read(t, configPath) != shipped || !strings.Contains(said, "Replace it?") {
		t.Errorf("without an answer: got %q, and the config was replaced", said)
	}
	said := mustDo(t, "sh", "-c", "echo yes | fpm-gate init")
	written := read(t, configPath)
	if read(t, configPath+".old") != shipped || written == shipped || strings.Contains(said, "note:") {
		t.Errorf("got %s\n%s", said, written)
	}
	followSteps(t, said)
	eventually(t, "requests pass the gate", func() bool {
		return get(t, "/lock.php", "") == "none" && get(t, "/lock.php", "one") == "held"
	})
}

// followSteps does what init has said, line by line, but for the last: to look at it.
func followSteps(t *testing.T, said string) {
	t.Helper()
	var old string
	inDiff, done := false, 0
	for line := range strings.Lines(said) {
		inDiff = strings.HasPrefix(line, "--- ") || inDiff && line != "\n"
		switch command := strings.TrimSpace(line); {
		case !inDiff && strings.HasPrefix(line, "     ") && command != "fpm-gate locks --watch":
			mustDo(t, "sh", "-c", command)
			done++
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			if strings.TrimSpace(line[4:]) != sitePath {
				t.Errorf("the diff is one of %s, want %s", line[4:], sitePath)
			}
		case strings.HasPrefix(line, "-"):
			old = line[1:]
		case strings.HasPrefix(line, "+"):
			write(t, sitePath, strings.Replace(read(t, sitePath), old, line[1:], 1))
		}
	}
	if done != 4 {
		t.Errorf("init told %d commands, want 4: to check, to start, and to reload nginx\n%s", done, said)
	}
}
