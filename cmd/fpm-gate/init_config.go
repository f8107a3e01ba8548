package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/fpm-gate/fpm-gate/config"
)

// configOf returns a config with a gate for each pool, which has passed the checks of Parse. It is to be written to
// file.
func configOf(pools []*pool, file string, observe bool) (string, error) {
	w := &configWriter{}
	w.line("# The configuration of fpm-gate, as fpm-gate init has made it for this machine.")
	w.line("#")
	w.line("#   fpm-gate check --config %s    shows all errors at once", file)
	w.line("#   systemctl reload fpm-gate    takes this file; an invalid one changes nothing")
	w.line("#")
	w.line("# All keys: fpm-gate.hcl(5). docs/APPLICATIONS.md has a section for each application.")
	w.line("")
	w.line("# fpm-gate locks, metrics and the page; for root and the group fpm-gate.")
	w.line("admin {")
	w.line(`  listen = "unix:/run/fpm-gate/admin.sock"`)
	w.line("}")
	for _, p := range pools {
		w.line("")
		p.write(w, observe)
	}
	text := w.String()
	if _, err := config.Parse([]byte(withoutEnv(text)), "the new config"); err != nil {
		return "", fmt.Errorf("what was found makes no valid config; please report it: %w", err)
	}
	return text, nil
}

// withoutEnv returns the text with a key in the place of env, which need not be set while the config is made.
func withoutEnv(text string) string {
	return strings.NewReplacer(`env("APP_KEY")`, `"0123456789abcdef"`, `env("APP_PREVIOUS_KEYS", "")`, `""`).Replace(text)
}

// configWriter writes a config.
type configWriter struct{ strings.Builder }

func (w *configWriter) line(format string, args ...any) {
	fmt.Fprintf(&w.Builder, format+"\n", args...)
}

// key writes a key of a block, with where its value comes from.
func (w *configWriter) key(name string, value any, source string) {
	text := fmt.Sprint(value)
	if s, is := value.(string); is {
		text = config.Quote(s)
	}
	if source != "" {
		source = " # " + source
	}
	w.line("    %s = %s%s", name, text, source)
}

// from returns where a setting of PHP's stands.
func (p *pool) from(key string) string {
	if s := p.settings[key]; s.place != "" {
		return key + ", " + s.place
	}
	return ""
}

// write writes the gate of the pool. A value has a comment with where it was found, for an operator who looks
// whether init has understood.
func (p *pool) write(w *configWriter, observe bool) {
	w.line("# The pool %q of %s.", p.name, strings.TrimSpace(p.settings[sectionKey].place))
	w.line("gate %s {", config.Quote(p.gate))
	if p.first && p.m.socket {
		w.line("  # fpm-gate.socket: systemd listens on %s, so that no restart refuses a request.", p.socket())
		w.line(`  listen = "systemd:www"`)
	} else {
		w.line("  listen = %s", config.Quote("unix:"+p.socket()))
		if group := p.settings["listen.group"].value; group != "" {
			w.line("  listen_group = %s # of the web server: %s", config.Quote(group), p.from("listen.group"))
		} else {
			w.line(`  # listen_group = "" # of the web server, which has to connect here`)
		}
		if mode := p.settings["listen.mode"].value; octalMode.MatchString(mode) {
			w.line("  listen_mode = %s # %s", config.Quote(mode), p.from("listen.mode"))
		}
	}
	p.writeUpstream(w)
	p.writeSession(w)
	w.line("")
	w.line("  lock {")
	w.line("    # true: no request waits. What would have waited is counted and logged. Good for a first day.")
	if observe {
		w.line("    observe = true")
	} else {
		w.line("    # observe = true")
	}
	w.line("  }")
	w.line("}")
}

var octalMode = regexp.MustCompile(`^0?[0-7]{3}$`)

func (p *pool) writeUpstream(w *configWriter) {
	w.line("")
	w.line("  upstream {")
	w.key("address", p.address(), p.from("listen"))
	// More than one connection for each worker would queue in PHP-FPM's backlog, where the gate sees nothing of them.
	if n, err := strconv.Atoi(p.settings["pm.max_children"].value); err == nil && n > 0 {
		w.key("max_connections", n, p.from("pm.max_children"))
	}
	w.line(`    unreachable_wait = "10s" # for its restarts; "0s" where the web server has another server to go to`)
	for _, path := range [][2]string{{"ping_path", "ping.path"}, {"status_path", "pm.status_path"}} {
		if v := p.settings[path[1]].value; v != "" {
			w.key(path[0], v, p.from(path[1]))
		}
	}
	w.line("  }")
}

// writeSession writes how the sessions of the pool are found and kept.
func (p *pool) writeSession(w *configWriter) {
	w.line("")
	w.line("  session {")
	name := p.settings["session.name"].value
	if app := p.app(); app != nil {
		w.key("application", app.Name, "found in "+p.apps[0].place)
		if app.Format == config.FormatLaravel {
			w.line(`    keys = [env("APP_KEY"), env("APP_PREVIOUS_KEYS", "")] # of its .env, by /etc/fpm-gate/fpm-gate.env`)
		}
		for _, other := range p.apps[1:] {
			w.line("    # %s was found, too, in %s: give it a pool of its own, or add its cookies.", other.Name, other.place)
		}
	} else if name != "" && name != "PHPSESSID" {
		w.line("    cookies = [%s] # %s", config.Quote(name), p.from("session.name"))
	}
	if isOff(p.settings["session.use_only_cookies"].value) {
		w.line("    query = [%s] # %s", config.Quote(cmp.Or(name, "PHPSESSID")), p.from("session.use_only_cookies"))
	}
	s := p.sessions()
	if s.handler != config.HandlerAny {
		w.key("handler", s.handler, p.from("session.save_handler"))
		if s.savePath != "" {
			w.key("save_path", s.savePath, p.from("session.save_path"))
		}
		if s.keyPrefix != "" {
			w.key("key_prefix", s.keyPrefix, p.from("memcached.sess_prefix"))
		}
	}
	if s.locks && (p.app() == nil || !p.app().Locks) {
		w.key("locks", true, p.from("redis.session.locking_enabled"))
	}
	const inputVars = "max_input_vars" // 1000 is PHP's default, and the config's
	if n, err := strconv.Atoi(p.settings[inputVars].value); err == nil && n > 0 && n != 1000 {
		w.key(inputVars, n, p.from(inputVars))
	}
	w.line("  }")
}
