package rig

import "text/template"

// Lighttpd starts a lighttpd, which passes PHP on by mod_fastcgi.
func (r *Rig) Lighttpd(site *Site) (*Server, error) {
	return r.web("lighttpd", webServer{
		program: "lighttpd",
		config:  lighttpdConfig,
		command: func(s *Server, path, config string) command {
			return command{path: path, args: []string{"-D", "-f", config}}
		},
	}, site)
}

// disable-time: a backend that has refused once is asked again with the next request, and not left out for a while.
var lighttpdConfig = template.Must(template.New("lighttpd").Parse(`
server.modules = ( "mod_fastcgi" )
server.errorlog = "{{.Log}}"
server.pid-file = "{{.Dir}}/pid"
server.upload-dirs = ( "{{.Dir}}" )
{{with .Site}}server.bind = "{{.Listen.Host}}"
server.port = {{.Listen.Port}}
server.document-root = "{{.DocRoot}}"
server.max-request-field-size = 65535
server.max-read-idle = {{.Seconds}}
{{- if .Unbuffered}}
server.stream-request-body = 2
server.stream-response-body = 2
{{- end}}
fastcgi.server = ( ".php" => ((
{{- if eq .FastCGI.Network "unix"}}
    "socket" => "{{.FastCGI.Address}}",
{{- else}}
    "host" => "{{.FastCGI.Host}}",
    "port" => {{.FastCGI.Port}},
{{- end}}
    "check-local" => "disable",
    "read-timeout" => {{.Seconds}},
    "disable-time" => 0
)) )
{{.Settings}}
{{end}}`))
