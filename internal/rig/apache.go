package rig

import (
	"errors"
	"path/filepath"
	"text/template"
)

// Apache starts an Apache httpd with the event MPM, which passes PHP on by mod_proxy_fcgi. It refuses to serve as root,
// so root runs it as an unprivileged user.
func (r *Rig) Apache(site *Site) (*Server, error) {
	return r.web("apache", webServer{
		program:    "apache2",
		config:     apacheConfig,
		keepsConns: true,
		command: func(s *Server, path, config string) command {
			args := []string{"-DFOREGROUND", "-d", s.dir, "-f", config}
			return command{path: path, args: args, unprivileged: true}
		},
		values: func(*Server) (map[string]any, error) {
			modules := firstFile("/usr/lib/apache2/modules/mod_proxy_fcgi.so", "/usr/lib64/httpd/modules/mod_proxy_fcgi.so")
			if modules == "" {
				return nil, errors.New("mod_proxy_fcgi is not where it is expected")
			}
			return map[string]any{"Modules": filepath.Dir(modules)}, nil
		},
	}, site)
}

// A backend on a Unix socket has a URL as well, which only names it.
var apacheConfig = template.Must(template.New("apache").Parse(`
{{- define "backend"}}
{{- if eq .FastCGI.Network "unix"}}{{.FastCGI}}|fcgi://backend{{else}}fcgi://{{.FastCGI}}{{end}}
{{- end -}}
LoadModule mpm_event_module {{.Modules}}/mod_mpm_event.so
LoadModule authz_core_module {{.Modules}}/mod_authz_core.so
LoadModule proxy_module {{.Modules}}/mod_proxy.so
LoadModule proxy_fcgi_module {{.Modules}}/mod_proxy_fcgi.so
DefaultRuntimeDir {{.Dir}}
PidFile {{.Dir}}/pid
ErrorLog {{.Log}}
Mutex file:{{.Dir}} default
ServerName localhost
StartServers 1
ServerLimit 4
ThreadsPerChild 64
MaxRequestWorkers 256
LimitRequestFieldSize 65536
{{with .Site}}Listen {{.Listen}}
DocumentRoot {{.DocRoot}}
ProxyTimeout {{.Seconds}}
<Directory {{.DocRoot}}>
    Require all granted
</Directory>
<Proxy "{{template "backend" .}}/">
    ProxySet {{if .Keepalive}}enablereuse=on max={{.Keepalive}}{{else}}enablereuse=off{{end}}
{{- if .Unbuffered}}
    ProxySet flushpackets=on
{{- end}}
</Proxy>
<FilesMatch "\.php$">
    SetHandler "proxy:{{template "backend" .}}/"
</FilesMatch>
{{.Settings}}
{{end}}`))
