package phpfpm

import "encoding/json"

// Status is PHP-FPM's status page. The counters and the maxima begin with the start of PHP-FPM.
type Status struct {
	Pool               string `json:"pool"`
	ProcessManager     string `json:"process manager"`
	AcceptedConn       uint64 `json:"accepted conn"`
	ListenQueue        int    `json:"listen queue"`
	MaxListenQueue     int    `json:"max listen queue"`
	ListenQueueLen     int    `json:"listen queue len"` // how many it holds; see KnowsBacklog
	IdleProcesses      int    `json:"idle processes"`
	ActiveProcesses    int    `json:"active processes"`
	TotalProcesses     int    `json:"total processes"`
	KeptProcesses      int    `json:"-"` // idle on a kept connection, counted neither as active nor as idle
	MaxActiveProcesses int    `json:"max active processes"`
	MaxChildrenReached uint64 `json:"max children reached"`
	SlowRequests       uint64 `json:"slow requests"`
}

// KnowsBacklog reports whether PHP-FPM knows how many connections are in its backlog, and how many fit into it. On
// Linux it asks the kernel for TCP only: over a unix socket both are always 0.
func (s *Status) KnowsBacklog() bool { return s.ListenQueueLen > 0 }

// UnmarshalJSON decodes a status page. If the page lists the processes, it counts them by their states: PHP-FPM's own
// sums count a worker with a kept connection once more for each request.
func (s *Status) UnmarshalJSON(b []byte) error {
	type summary Status // without this method, which would call itself
	var page struct {
		summary
		Processes []struct {
			State string `json:"state"`
		} `json:"processes"`
	}
	if err := json.Unmarshal(b, &page); err != nil {
		return err
	}
	*s = Status(page.summary)
	if len(page.Processes) == 0 { // the short page, without ?full
		return nil
	}
	s.ActiveProcesses, s.IdleProcesses, s.KeptProcesses, s.TotalProcesses = 0, 0, 0, len(page.Processes)
	// fpm_request.c names the states. A worker with a kept connection waits for its next request in "Reading
	// headers", where one with a new request is only for microseconds.
	for _, p := range page.Processes {
		switch p.State {
		case "Idle":
			s.IdleProcesses++
		case "Reading headers":
			s.KeptProcesses++
		default:
			s.ActiveProcesses++
		}
	}
	return nil
}
