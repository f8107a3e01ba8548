package demo

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// workers is how many each PHP-FPM pool has.
const workers = 10

// stage is what a part is played on: one nginx with two sites, which differ in one line of its configuration. One goes
// to PHP-FPM, the other to the gate before another PHP-FPM like it.
type stage struct {
	without, with *side
	servers       []*rig.Server // in the order in which they are stopped
}

// side is one site of a stage.
type side struct {
	gated bool
	url   string
	php   *rig.PHPFPM
	log   string // PHP-FPM's access log
}

func (s *side) String() string {
	if s.gated {
		return "with fpm-gate"
	}
	return "without fpm-gate"
}

// conditions are the same for both sides of a stage; except that only one has a gate for gateSettings.
type conditions struct {
	ini          map[string]string // of PHP
	gateSettings string            // in the gate's block of its configuration, which is all defaults else
	gateConfig   string            // outside that block
	watched      bool              // the gate watches PHP's session files
}

// stage starts the servers of a stage. Its name is a part of theirs, and has to be short.
func (s *story) stage(name string, c conditions) (*stage, error) {
	st := &stage{with: &side{gated: true}, without: &side{}}
	if err := s.startPHP(st.without, "php-"+name+"-without", c); err != nil {
		return nil, err
	}
	if err := s.startPHP(st.with, "php-"+name+"-with", c); err != nil {
		return nil, err
	}
	if c.watched {
		c.gateSettings += fmt.Sprintf("session {\n handler = \"files\"\n save_path = %q\n}", st.with.php.Sessions)
	}
	g, err := s.rig.Gate(rig.GateOptions{
		Name: "gate-" + name, Binary: s.binary, Upstream: st.with.php.Addr, Settings: c.gateSettings, Config: c.gateConfig,
	})
	if err != nil {
		return nil, err
	}
	sites := []*rig.Site{{FastCGI: st.without.php.Addr}, {FastCGI: g.Addr}}
	n, err := s.rig.Nginx(rig.NginxOptions{Name: "nginx-" + name, Sites: sites})
	if err != nil {
		return nil, err
	}
	st.without.url, st.with.url = sites[0].URL(""), sites[1].URL("")
	// PHP-FPM first: then neither of the others has a script left to wait for.
	st.servers = []*rig.Server{st.without.php.Server, st.with.php.Server, n, g.Server}
	return st, nil
}

// startPHP starts the PHP-FPM of a side. Its access log shows which scripts it has run.
func (s *story) startPHP(sd *side, name string, c conditions) (err error) {
	sd.log = filepath.Join(s.rig.Dir(), name, "access.log")
	sd.php, err = s.rig.PHPFPM(rig.PHPOptions{
		Name: name, Workers: workers, INI: c.ini, AllExtensions: true,
		Pool: "access.log = " + sd.log + "\naccess.format = \"%m %r?%q %s\"\n",
	})
	return err
}

// stop stops the servers of the stage. It sets *err to its own error if that is nil.
func (st *stage) stop(err *error) {
	var errs []error
	for _, s := range st.servers {
		errs = append(errs, s.Stop())
	}
	if *err == nil {
		*err = errors.Join(errs...)
	}
}

// sides are both, in the order in which they have their turn.
func (st *stage) sides() []*side { return []*side{st.without, st.with} }

//go:embed php/unlocked.php
var unlockedScript []byte

// unlocked are the settings of a PHP whose sessions nothing locks.
func (s *story) unlocked() (map[string]string, error) {
	path := filepath.Join(s.rig.Dir(), "unlocked.php")
	return map[string]string{"auto_prepend_file": path}, os.WriteFile(path, unlockedScript, 0o644)
}
