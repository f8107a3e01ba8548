//go:build !amd64

package phpworker

// olderCalls are the system calls that amd64 has in addition to the common ones.
var olderCalls map[int]syscallKind
