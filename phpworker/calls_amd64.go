package phpworker

import "golang.org/x/sys/unix"

// olderCalls are those that newer processors do without.
var olderCalls = map[int]syscallKind{
	unix.SYS_POLL:       {"poll", inPollSet},
	unix.SYS_SELECT:     {"select", inNone},
	unix.SYS_EPOLL_WAIT: {"epoll_wait", inFirst},
	unix.SYS_OPEN:       {"open", inNone},
}
