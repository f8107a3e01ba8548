package tests

import (
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// nginxStreams is how many requests nginx takes at once from one browser over HTTP/2.
const nginxStreams = 128

// A page full of images that PHP makes asks for all of them at once.
func TestOneBrowsersBurstIsNotRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(nginxStreams)}})
	session := newSession()
	held := s.hold(t, session, "burst")
	var images []<-chan response
	for range nginxStreams {
		images = append(images, s.begin("/hello.php", session))
	}
	s.awaitQueue(t, session, nginxStreams)
	letGo(t, s.Rig, "burst")
	(<-held).mustBe(t, "last\n")
	for _, image := range images {
		(<-image).mustBe(t, "hello\n")
	}
}

// A burst that does not fit in PHP-FPM's backlog waits for a place in it.
func TestABurstWaitsForPHPFPMsBacklog(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStack(t, stackOptions{PHP: rig.PHPOptions{Listen: network, Workers: 1, Pool: "listen.backlog = 1"}})
		var pages []<-chan response
		for range 8 {
			pages = append(pages, s.begin("/nosession.php?ms=400", ""))
		}
		for _, page := range pages {
			(<-page).mustBe(t, "no session\n")
		}
	})
}
