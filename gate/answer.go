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

// answer ends a request that PHP-FPM did not answer: with the answer that err calls for, if the web server is still
// there. It returns err if the conn cannot be used any further.
func (r *request) answer(err error) error {
	a := r.newVerdict(err)
	r.ended(a.outcome)
	r.logEnd(a.level, a.log, err)
	if errors.Is(err, fcgi.ErrHungUp) {
		r.hintLostPost()
	}
	switch {
	case a.fail:
		r.Fail()
		return err
	case a.status == 0:
		return err
	}
	if err := r.Respond(r.page(a, err)); err != nil {
		return fmt.Errorf("answer %d: %w", a.status, err)
	}
	return nil
}

// hintLostPost logs, at most once a minute, a POST that has not reached PHP because its web server hung up while it
// waited. A site that sends requests to itself without waiting for the responses loses tasks that way.
func (r *request) hintLostPost() {
	if string(r.head.method) != http.MethodPost || !r.exchange.Connected().IsZero() {
		return
	}
	now, last := time.Now().UnixNano(), r.gate.lostPost.Load()
	if last != 0 && now-last < int64(time.Minute) || !r.gate.lostPost.CompareAndSwap(last, now) {
		return
	}
	r.gate.log.Info("a POST was dropped because its client left while it waited for its session; if the site sends"+
		" such requests to itself, set fastcgi_ignore_client_abort on in nginx for their path", r.logPairs()...)
}

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

// newVerdict returns what err means.
func (r *request) newVerdict(err error) verdict {
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
	case r.byOperator.Load() && r.wasTerminated(err):
		return verdict{status: http.StatusGatewayTimeout, text: "This request was ended by an operator.",
			log: "aborted: terminated by an operator", level: hclog.Warn, outcome: OutcomeTerminated}
	case errors.Is(err, sessionlock.ErrExpired), errors.Is(err, errOverdue):
		return verdict{status: http.StatusGatewayTimeout, text: "The page took too long to generate.",
			log: "aborted: the lock has expired", level: hclog.Warn, outcome: OutcomeExpired}
	case r.wasTerminated(err):
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
		return verdict{status: http.StatusBadGateway, fail: !r.hidesFailure(), text: "The service cannot be reached.",
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
func (r *request) wasTerminated(err error) bool {
	return errors.Is(err, errOverdue) || r.killed.Load() && errors.Is(err, fcgi.ErrUpstream)
}

// hidesFailure reports whether the web server would end its client's connection without a response if the gate closed
// the conn. HAProxy 3 does that on a kept conn, and expects the client to retry.
func (r *request) hidesFailure() bool {
	return r.OnKeptConn() && bytes.Contains(r.Params.Get("SERVER_SOFTWARE"), []byte("HAProxy"))
}

// page returns the answer: a short HTML page, or JSON for a client that accepts JSON but not HTML.
func (r *request) page(a verdict, reason error) fcgi.Answer {
	var h bytes.Buffer
	fmt.Fprintf(&h, "Status: %d %s\r\n", a.status, http.StatusText(a.status))
	h.WriteString("Cache-Control: no-store\r\n")
	if a.outcome == OutcomeRedirected {
		h.WriteString("Location: " + sameAddress(string(r.head.target)) + "\r\n")
	}
	if a.retryAfter > 0 {
		seconds := (a.retryAfter + time.Second - 1) / time.Second
		h.WriteString("Retry-After: " + strconv.Itoa(int(seconds)) + "\r\n")
	}
	body, contentType := htmlPage(a), "text/html; charset=utf-8"
	if r.wantsJSON() {
		body, contentType = fmt.Appendf(nil, `{"status":%d,"error":%q}`+"\n", a.status, a.text), "application/json"
	}
	fmt.Fprintf(&h, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	if string(r.head.method) == http.MethodHead {
		body = nil
	}
	answer := fcgi.Answer{Header: h.Bytes(), Body: body}
	if a.outcome != OutcomeRedirected { // which is no error
		answer.Stderr = "fpm-gate: " + a.log + ": " + reason.Error() + "\n"
	}
	return answer
}

func (r *request) wantsJSON() bool {
	accept := bytes.ToLower(r.head.accept)
	return bytes.Contains(accept, []byte("json")) && !bytes.Contains(accept, []byte("text/html"))
}

func htmlPage(a verdict) []byte {
	title := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	return fmt.Appendf(nil, `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>%[1]s</title></head>
<body><h1>%[1]s</h1><p>%[2]s</p></body></html>
`, title, html.EscapeString(a.text))
}
