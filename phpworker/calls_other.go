//go:build !amd64

package phpworker

// olderCalls are those that amd64 has beside the common ones.
var olderCalls map[int]syscallKind
