package admin

import (
	"encoding/json"
	"net/http"
	"time"
)

// ErrorPage is the response to a request that failed.
type ErrorPage struct {
	Error string   `json:"error"`
	Keys  []string `json:"keys,omitempty"` // of the locks that match an ambiguous prefix
}

func fail(w http.ResponseWriter, status int, text string) {
	reply(w, status, ErrorPage{Error: text})
}

func reply(w http.ResponseWriter, status int, page any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(page) // fails only if the client has gone, which is no event worth a log line
}

// timeText returns a time as the JSON has it: RFC 3339 in UTC, or "" for the zero time.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// age returns the milliseconds from since to now; 0 if a clock of another host is ahead of ours.
func age(since, now time.Time) int64 { return max(0, now.Sub(since).Milliseconds()) }
