package phpworker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rights returns nil if this process has the capabilities that Local needs to look at and to end the processes of other
// users, in its own user namespace. Else the error wraps ErrRights, or ErrNoKill, and names what is missing.
func Rights() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRights, err)
	}
	return missingRights(status)
}

// missingRights looks for the capabilities in a /proc/PID/status. CapEff, the effective ones, has a bit for each; see
// capabilities(7). A status without that field has none.
func missingRights(status []byte) error {
	effective := uint64(0)
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			effective, _ = strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		}
	}
	var missing []string
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}, {unix.CAP_KILL, "CAP_KILL"}} {
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	kind := ErrRights
	switch {
	case missing == nil:
		return nil
	case effective&(1<<unix.CAP_SYS_PTRACE) != 0:
		kind = ErrNoKill
	}
	return fmt.Errorf("%w: this process has no %s", kind, strings.Join(missing, " and no "))
}
