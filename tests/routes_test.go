package tests

import (
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestARouteIsChosenByWhatTheWebServerRuns asks for paths in many spellings: a
// visitor must not be able to choose a route for a script by how it is written.
// One that can be read in several ways reaches no route past the first that has
// paths. See spelling_test.go for all web servers.
func TestARouteIsChosenByWhatTheWebServerRuns(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  route "exact" {
    path = ["/exact/info.php"]
    mode = "off"
  }
  route "below" {
    path = ["/below/*"]
    mode = "off"
  }
  route "deep" {
    path = ["/deep/**", "/deeper/**"]
    mode = "off"
  }
  route "asked" {
    path    = ["/methods/**"]
    methods = ["GET", "HEAD"]
    mode    = "read"
  }
  route "written" {
    path = ["/methods/**"]
    mode = "off"
  }
  route "host" {
    host = ["stats.example.com"]
    mode = "off"
  }`}})
	for _, as := range []string{
		"exact/info.php", "exact/sub/info.php", "below/info.php", "below/sub/info.php",
		"deep/info.php", "deep/sub/sub/info.php", "deeper/info.php", "methods/info.php",
	} {
		copyScript(t, s.Rig, "info.php", as)
	}
	session := newSession()
	for _, tt := range []struct{ method, host, path, want string }{
		{path: "/info.php", want: "held"},
		{path: "/exact/info.php", want: "none"},
		{path: "/exact/info.php?x=/", want: "none"},
		{path: "/exact/sub/info.php", want: "held"},
		{path: "/below/info.php", want: "none"},
		{path: "/below/sub/info.php", want: "held"},
		{path: "/deep/info.php", want: "none"},
		{path: "/deep/sub/sub/info.php", want: "none"},
		{path: "/deeper/info.php", want: "none"},
		{method: "GET", path: "/methods/info.php", want: "read"},
		{method: "POST", path: "/methods/info.php", want: "none"},
		{host: "stats.example.com", path: "/info.php", want: "none"},
		{host: "STATS.example.com:8080", path: "/info.php", want: "none"},
		{host: "stats.example.com.evil", path: "/info.php", want: "held"},

		{path: "/deep/../info.php", want: "held"},
		{path: "/deep/./../info.php", want: "held"},
		{path: "/deep/%2e%2e/info.php", want: "held"},
		{path: "/deep/%2E./info.php", want: "held"},
		{path: "/deep/..%2finfo.php", want: "held"},
		{path: "/deep%2f..%2finfo.php", want: "held"},
		{path: "/deep/sub/../../info.php", want: "held"},
		{path: "//deep/..//info.php", want: "held"},
		{path: "/info.php/deep/x", want: "held"},
		{path: "/info.php/../info.php/deep/", want: "held"},
		{path: "/info.php?/deep/x", want: "held"},
		{path: "/info.php?x=/deep/../deep/x", want: "held"},
		{path: "/exact/../info.php/exact/info.php", want: "held"},
		{path: "/below/../below/sub/info.php", want: "held"},

		{path: "/deeper/../exact/info.php", want: "none"}, // SCRIPT_NAME matches the first route
		{path: "/%65xact/info.php", want: "none"},
		{path: "//exact///info.php", want: "none"},
		{path: "/exact/../deep/info.php", want: "held"}, // and here of a later one
		{path: "/%64eep/info.php", want: "held"},
		{path: "//deep///info.php", want: "held"},
		{path: "/info.php/../deep/info.php", want: "held"},
	} {
		q := request{method: tt.method, path: tt.path, session: session, header: map[string]string{}}
		if tt.host != "" {
			q.header["Host"] = tt.host
		}
		if got := s.info(t, q).Gate["FPM_GATE_LOCK"]; got != tt.want {
			t.Errorf("%s %s%s: got %s, want %s", tt.method, tt.host, tt.path, got, tt.want)
		}
	}
}

func TestAReaderWaitsForTheWriterAheadAndHoldsNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1) + `
  route "readers" {
    path = ["/reader.php", "/info.php"]
    mode = "read"
  }`}})
	copyScript(t, s.Rig, "wait.php", "reader.php")
	session := newSession()
	writer := s.hold(t, session, "writer")
	waiting := s.begin("/info.php?session=0", session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, "writer")
	(<-writer).mustBe(t, "last\n")
	if got, want := infoOf(t, <-waiting).Gate["FPM_GATE_LOCK"], "read"; got != want {
		t.Errorf("lock: got %s, want %s", got, want)
	}

	reader := s.begin("/reader.php?mark=reader", session)
	awaitMark(t, s.Rig, "reader.started")
	if got, want := s.info(t, request{path: "/info.php?session=0", session: session}).Gate["FPM_GATE_LOCK"], "read"; got != want {
		t.Errorf("next to a reader: got %s, want %s", got, want)
	}
	s.get("/hello.php", session).mustBe(t, "hello\n")
	letGo(t, s.Rig, "reader")
	(<-reader).mustBe(t, "last\n")
}
