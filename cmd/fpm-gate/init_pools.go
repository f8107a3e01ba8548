package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fpm-gate/fpm-gate/config"
)

// machine is what init has found.
type machine struct {
	systemFiles
	pools  []*pool
	passes []pass // of web servers to PHP-FPM
	socket bool   // systemd listens for a gate "www"
}

// pool is a PHP-FPM pool with its settings, of which those of php.ini are a part.
type pool struct {
	name string
	settings
	gate  string     // the name of its gate, and of the socket where that listens
	apps  []appFound // in the document roots that web servers pass to it; the most special first
	first bool       // of all pools
	m     *machine
}

// appFound is an application in a folder.
type appFound struct {
	*config.Application
	place string
}

// survey reads the configuration of the machine whose files are below root.
func survey(root string) *machine {
	m := &machine{systemFiles: systemFiles{root: root}}
	for i, pattern := range poolFiles {
		files := m.glob(pattern)
		if len(files) == 0 {
			m.mayRead(filepath.Dir(m.path(pattern)))
		}
		files = slices.DeleteFunc(files, func(file string) bool { return !m.mayRead(file) })
		for _, section := range readPools(files) {
			if section["listen"].value != "" {
				m.addPool(section, i)
			}
		}
	}
	m.passes = webServers(&m.systemFiles)
	for _, p := range m.pools {
		p.findApps()
	}
	// The packages' socket unit listens for the gate of the first pool, which could not listen there itself.
	for _, lib := range []string{"usr/lib", "lib", "usr/local/lib"} {
		m.socket = m.socket || m.exists(lib+"/systemd/system/fpm-gate.socket")
	}
	m.nameGates()
	return m
}

// nameGates gives each pool's gate a name of its own. Pools of several versions of PHP often have the same one.
func (m *machine) nameGates() {
	taken := map[string]bool{}
	for _, p := range m.pools {
		p.gate = p.freeName(taken)
		taken[p.gate] = true
		if p.first && m.socket {
			taken[socketUnitName] = true // the unit's socket is where another gate of that name would listen
		}
	}
}

// socketUnitName is the name of fpm-gate.socket's gate.
const socketUnitName = "www"

// freeName returns a name for the pool's gate that is not taken: its own, with the version of PHP, or with a number.
func (p *pool) freeName(taken map[string]bool) string {
	name := gateName(p.name, "")
	if version := phpVersion.FindStringSubmatch(p.settings[sectionKey].place); taken[name] && version != nil {
		name = gateName(p.name, "-"+version[1])
	}
	for n := 2; taken[name]; n++ {
		name = gateName(p.name, fmt.Sprint("-", n))
	}
	return name
}

// maxGateName is how long the name of a gate may be.
const maxGateName = 64

// gateName makes a name of a gate of a pool's, with suffix at its end: what is not allowed in one becomes a dash.
func gateName(pool, suffix string) string {
	name := strings.Map(func(c rune) rune {
		if strings.ContainsRune("._-", c) || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			return c
		}
		return '-'
	}, cmp.Or(pool, "pool"))
	return name[:min(len(name), maxGateName-len(suffix))] + suffix
}

// phpVersion matches the version in the path of a pool's file, as Debian has it.
var phpVersion = regexp.MustCompile(`/php/([0-9.]+)/fpm/`)

// addPool adds a pool, with the settings of its php.ini. The pool wins over all of them.
func (m *machine) addPool(section settings, i int) {
	section.expandPool()
	for _, file := range phpINIs(section.folder(), i) {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) || !m.mayRead(file) {
			continue
		}
		section.addMissing(readPHPINI(file))
	}
	m.pools = append(m.pools, &pool{name: section[sectionKey].value, settings: section, first: len(m.pools) == 0, m: m})
}

// lookedAt lists where pools were looked for.
func (m *machine) lookedAt() (places []string) {
	for _, pattern := range poolFiles {
		places = append(places, m.path(pattern))
	}
	return places
}

// address returns where the pool listens, as the config has it.
func (p *pool) address() string {
	listen := p.settings["listen"].value
	switch {
	case strings.HasPrefix(listen, "/"):
		return "unix:" + listen
	case !strings.Contains(listen, ":"): // a port alone: PHP-FPM listens on all addresses
		return "127.0.0.1:" + listen
	}
	for _, all := range []string{"[::]:", "0.0.0.0:"} {
		if port, is := strings.CutPrefix(listen, all); is {
			return "127.0.0.1:" + port
		}
	}
	return listen
}

// socket is where the gate of the pool listens.
func (p *pool) socket() string {
	if p.first && p.m.socket {
		return "/run/fpm-gate/" + socketUnitName + ".sock" // of fpm-gate.socket
	}
	return "/run/fpm-gate/" + p.gate + ".sock"
}

// phpSessions is how PHP keeps the sessions of a pool, as a session block has it.
type phpSessions struct {
	handler, savePath, keyPrefix string
	locks                        bool
}

// debianSessions is the save_path that Debian compiles into PHP.
const debianSessions = "/var/lib/php/sessions"

// sessions reads the session settings of the pool. It reads only what the files say: an application may set more, which
// config.Applications knows for some.
func (p *pool) sessions() (s phpSessions) {
	if app := p.app(); app != nil && app.OwnSessions {
		return phpSessions{handler: config.HandlerAny, locks: app.Locks}
	}
	value := func(key string) string { return p.settings[key].value }
	s.handler, s.savePath = value("session.save_handler"), value("session.save_path")
	switch s.handler {
	case "", config.HandlerFiles:
		s.handler = config.HandlerFiles
		if s.savePath == "" && p.m.exists(debianSessions) {
			s.savePath = debianSessions
		}
	case config.HandlerMemcached:
		// Without locks there is no key to watch, and the gate must hold its own lock until the script ends.
		if isOff(value("memcached.sess_locking")) || s.savePath == "" {
			return phpSessions{handler: config.HandlerAny}
		}
		s.keyPrefix = value("memcached.sess_prefix")
	default:
		locks := s.handler == "redis" && isOn(value("redis.session.locking_enabled"))
		return phpSessions{handler: config.HandlerAny, locks: locks}
	}
	return s
}

// isOn and isOff know the words of php.ini.
func isOn(value string) bool {
	return slices.Contains([]string{"1", "on", "true", "yes"}, strings.ToLower(value))
}

func isOff(value string) bool {
	return slices.Contains([]string{"0", "off", "false", "no", "none"}, strings.ToLower(value))
}

// app returns the application that the pool's session block is for; nil: none is known.
func (p *pool) app() *config.Application {
	if len(p.apps) == 0 {
		return nil
	}
	return p.apps[0].Application
}

// findApps looks for applications in the folders that web servers have this pool run scripts of.
func (p *pool) findApps() {
	for _, pass := range p.m.passes {
		if !sameAddress(p.m.root, pass.address, p.address()) {
			continue
		}
		for _, folder := range pass.folders {
			for _, a := range config.Applications() {
				if p.has(a.Name) || !p.m.hasAny(folder, a.Marks) {
					continue
				}
				p.apps = append(p.apps, appFound{&a, folder})
			}
		}
	}
	// WooCommerce runs within WordPress, and has the session.
	if p.has("woocommerce") {
		p.apps = slices.DeleteFunc(p.apps, func(f appFound) bool { return f.Name == "wordpress" })
	}
}

// has reports whether an application was found: in one of several folders is enough.
func (p *pool) has(app string) bool {
	return slices.ContainsFunc(p.apps, func(f appFound) bool { return f.Name == app })
}
