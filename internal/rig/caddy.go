package rig

import "text/template"

// Caddy starts a Caddy, which passes PHP on by its php_fastcgi directive.
func (r *Rig) Caddy(site *Site) (*Server, error) {
	return r.web("caddy", webServer{
		program: "caddy",
		config:  caddyConfig,
		command: func(s *Server, path, config string) command {
			return command{
				path: path,
				args: []string{"run", "--adapter", "caddyfile", "--config", config},
				env:  []string{"HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir},
			}
		},
	}, site)
}

var caddyConfig = template.Must(template.New("caddy").Parse(`{
	admin off
	auto_https off
	log {
		level WARN
	}
}
{{with .Site}}
:{{.Listen.Port}} {
	bind {{.Listen.Host}}
	root * {{.DocRoot}}
	php_fastcgi {{if eq .FastCGI.Network "unix"}}unix/{{end}}{{.FastCGI.Address}} {
		read_timeout {{.Seconds}}s
{{- if .Unbuffered}}
		flush_interval -1
{{- end}}
		{{.Settings}}
	}
}
{{end}}`))
