package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Whatever requests do, a second of it takes few lines of the log, and none is left out without being counted.
func TestRequestsCannotFloodTheLog(t *testing.T) {
	none := func() []any { return nil }
	for _, tt := range []struct {
		name                      string
		sessions, requests, texts int
		without                   bool // no session
		level                     hclog.Level
		lines, summaries, counted int // counted: requests in the summaries
	}{
		{"one session", 1, 4129, 1, false, hclog.Info, 1, 1, 4128},
		{"some sessions", 5, 1000, 1, false, hclog.Warn, 5, 1, 995},
		{"many sessions", 4000, 4000, 1, false, hclog.Error, logLines, 1, 4000 - logLines},
		{"no session", 0, 500, 1, true, hclog.Info, logLines, 1, 500 - logLines},
		{"several texts", 1, 300, 3, false, hclog.Info, 3, 3, 297},
		{"few", 3, 3, 1, false, hclog.Info, 3, 0, 0},
		{"debug, which an operator wants to see whole", 1, 500, 1, false, hclog.Debug, 500, 0, 0},
		{"below the level", 1, 500, 1, false, hclog.Trace, 0, 0, 0},
	} {
		for _, ends := range []string{"by time", "by flush"} {
			t.Run(tt.name+", "+ends, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var out bytes.Buffer
					l := newRequestLog(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug, JSONFormat: true}), logWindow, logLines)
					var all sync.WaitGroup
					for n := range tt.requests {
						all.Go(func() {
							var key any
							if !tt.without {
								key = sessionlock.Key{byte(n % tt.sessions), byte(n % tt.sessions >> 8)}
							}
							l.write(tt.level, fmt.Sprintf("text %d", n%tt.texts), key, none)
						})
					}
					all.Wait()
					if ends == "by flush" {
						l.flush()
					}
					time.Sleep(2 * logWindow)
					synctest.Wait()
					lines, summaries, counted := 0, 0, 0
					for line := range strings.Lines(out.String()) {
						var v struct {
							Message  string `json:"@message"`
							Requests int
						}
						if err := json.Unmarshal([]byte(line), &v); err != nil {
							t.Fatal(err)
						}
						if strings.Contains(v.Message, "not logged individually") {
							summaries++
							counted += v.Requests
						} else {
							lines++
						}
					}
					if lines != tt.lines || summaries != tt.summaries || counted != tt.counted {
						t.Errorf("got %d lines and %d summaries of %d, want %d and %d of %d", lines, summaries, counted, tt.lines, tt.summaries, tt.counted)
					}
				})
			})
		}
	}
}
