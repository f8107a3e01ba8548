package fcgi

import "encoding/json"

// UnmarshalJSON decodes a status page. If the page lists the processes, it counts them by their states: PHP-FPM's own
// sums count a worker with a kept connection once more for each request.
func (s *Status) UnmarshalJSON(b []byte) error {
	type summary Status
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
	if len(page.Processes) == 0 {
		return nil
	}
	s.ActiveProcesses, s.IdleProcesses, s.KeptProcesses, s.TotalProcesses = 0, 0, 0, len(page.Processes)
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
