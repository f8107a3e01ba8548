package gate

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// verdict is what an error means for the web server and for the log.
type verdict struct {
	status     int // 0: no answer, as it is too late for one or the web server has gone
	retryAfter time.Duration
	text       string // for the visitor
	log        string // for the operator
	level      hclog.Level
	outcome    Outcome
	fail       bool // let the web server see that PHP-FPM has failed, and handle that as configured
}

// newVerdict returns what err means for r.
func newVerdict(r *request, err error) verdict {
	switch {
	case errors.Is(err, fcgi.ErrTruncated): // first: whatever the cause, it is too late for an answer
		return verdict{log: "response broken off", level: hclog.Error, outcome: OutcomeBroken}
	case errors.Is(err, fcgi.ErrAbandoned): // the web server has gone
		return verdict{log: "script abandoned", level: hclog.Warn, outcome: OutcomeAbandoned}
	case errors.Is(err, errReplaced):
		return verdict{status: http.StatusTemporaryRedirect, text: "Your session has been renewed.",
			log: "redirected: the session id was replaced", level: hclog.Debug, outcome: OutcomeRedirected}
	case errors.Is(err, sessionlock.ErrMaxWait):
		return verdict{status: r.policy.Status, retryAfter: r.policy.RetryAfter,
			text: "Your previous request is still being processed. Please try again in a moment.",
			log:  "rejected: max_wait exceeded", level: hclog.Info, outcome: OutcomeMaxWait}
	case errors.Is(err, sessionlock.ErrTooManyWaiters):
		return verdict{status: http.StatusTooManyRequests, retryAfter: r.policy.RetryAfter,
			text: "You have too many requests in progress. Please try again in a moment.",
			log:  "rejected: max_waiters reached", level: hclog.Info, outcome: OutcomeMaxWaiters}
	case errors.Is(err, fcgi.ErrShutdown), errors.Is(err, fcgi.ErrKilled):
		return verdict{status: http.StatusServiceUnavailable, retryAfter: r.policy.RetryAfter,
			text: "The service is being restarted. Please try again in a moment.",
			log:  "rejected: shutting down", level: hclog.Info, outcome: OutcomeShutdown}
	case errors.Is(err, sessionlock.ErrStore):
		return verdict{status: http.StatusServiceUnavailable, retryAfter: r.policy.RetryAfter,
			text: "The service is not ready. Please try again in a moment.",
			log:  "rejected: the lock store failed", level: hclog.Error, outcome: OutcomeStoreFailed}
	case r.byOperator.Load() && wasTerminated(r, err):
		return verdict{status: http.StatusGatewayTimeout, text: "This request was ended by an operator.",
			log: "aborted: terminated by an operator", level: hclog.Warn, outcome: OutcomeTerminated}
	case errors.Is(err, sessionlock.ErrExpired), errors.Is(err, errOverdue):
		return verdict{status: http.StatusGatewayTimeout, text: "The page took too long to generate.",
			log: "aborted: the lock has expired", level: hclog.Warn, outcome: OutcomeExpired}
	case wasTerminated(r, err):
		return verdict{status: http.StatusGatewayTimeout, text: "The page took too long to generate.",
			log: "aborted: its script was terminated", level: hclog.Warn, outcome: OutcomeTerminated}
	case errors.Is(err, fcgi.ErrQueueTimeout):
		return verdict{status: http.StatusServiceUnavailable, retryAfter: r.policy.RetryAfter,
			text: "The service is busy. Please try again in a moment.",
			log:  "rejected: no upstream connection was free", level: hclog.Warn, outcome: OutcomeUpstreamBusy}
	case errors.Is(err, fcgi.ErrPaused):
		return verdict{status: http.StatusServiceUnavailable, retryAfter: r.policy.RetryAfter,
			text: "The service is being maintained. Please try again in a moment.",
			log:  "rejected: the gate is paused", level: hclog.Warn, outcome: OutcomeUpstreamBusy}
	case errors.Is(err, fcgi.ErrUnreachable):
		return verdict{status: http.StatusBadGateway, fail: !hidesFailure(r), text: "The service cannot be reached.",
			log: "upstream failed", level: hclog.Error, outcome: OutcomeUpstreamFailed}
	case errors.Is(err, fcgi.ErrUpstream): // a request that may have run must not be sent again
		return verdict{status: http.StatusBadGateway, fail: !r.OnKeptConn(), text: "The service cannot be reached.",
			log: "upstream failed", level: hclog.Error, outcome: OutcomeUpstreamFailed}
	case errors.Is(err, fcgi.ErrHungUp):
		return verdict{log: "web server hung up", level: hclog.Debug, outcome: OutcomeHungUp}
	}
	return verdict{log: "request failed", level: hclog.Warn, outcome: OutcomeFailed}
}

// wasTerminated reports whether err comes of the end of the script by the gate.
func wasTerminated(r *request, err error) bool {
	return errors.Is(err, errOverdue) || r.killed.Load() && errors.Is(err, fcgi.ErrUpstream)
}

// hidesFailure reports whether the web server would end its client's connection without a response if the gate closed
// the conn. HAProxy 3 does that on a kept conn, and expects the client to retry.
func hidesFailure(r *request) bool {
	return r.OnKeptConn() && bytes.Contains(r.Params.Get("SERVER_SOFTWARE"), []byte("HAProxy"))
}

// answer returns what the web server gets: a short HTML page, or JSON for a client that accepts JSON but not HTML.
func (v *verdict) answer(r *request, reason error) fcgi.Answer {
	var h bytes.Buffer
	fmt.Fprintf(&h, "Status: %d %s\r\n", v.status, http.StatusText(v.status))
	h.WriteString("Cache-Control: no-store\r\n")
	if v.outcome == OutcomeRedirected {
		h.WriteString("Location: " + sameAddress(string(r.head.target)) + "\r\n")
	}
	if v.retryAfter > 0 {
		seconds := (v.retryAfter + time.Second - 1) / time.Second
		h.WriteString("Retry-After: " + strconv.Itoa(int(seconds)) + "\r\n")
	}
	body, contentType := htmlPage(v), "text/html; charset=utf-8"
	if wantsJSON(r.head.accept) {
		body, contentType = fmt.Appendf(nil, `{"status":%d,"error":%q}`+"\n", v.status, v.text), "application/json"
	}
	fmt.Fprintf(&h, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	if string(r.head.method) == http.MethodHead {
		body = nil
	}
	answer := fcgi.Answer{Header: h.Bytes(), Body: body}
	if v.outcome != OutcomeRedirected { // which is no error
		answer.Stderr = "fpm-gate: " + v.log + ": " + reason.Error() + "\n"
	}
	return answer
}

func wantsJSON(accept []byte) bool {
	accept = bytes.ToLower(accept)
	return bytes.Contains(accept, []byte("json")) && !bytes.Contains(accept, []byte("text/html"))
}

func htmlPage(v *verdict) []byte {
	title := fmt.Sprintf("%d %s", v.status, http.StatusText(v.status))
	return fmt.Appendf(nil, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>%[1]s</title></head>
<body><h1>%[1]s</h1><p>%[2]s</p></body></html>
`, title, html.EscapeString(v.text))
}
