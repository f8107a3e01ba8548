package rig

import "text/template"

// HAProxy starts an HAProxy, which passes everything on to a FastCGI application, scripts or not.
func (r *Rig) HAProxy(site *Site) (*Server, error) {
	return r.web("haproxy", webServer{
		program:    "haproxy",
		config:     haproxyConfig,
		keepsConns: true,
		command: func(s *Server, path, config string) command {
			return command{path: path, args: []string{"-db", "-f", config}}
		},
	}, site)
}

// Its buffers hold a whole header of a request or response, so they are made larger than the 16 KB that they are by
// default.
var haproxyConfig = template.Must(template.New("haproxy").Parse(`global
    log stdout format raw local0 warning
    tune.bufsize 65536
    maxconn 2000

defaults
    mode http
    log global
    timeout connect 5s
    timeout client 60s
{{with .Site}}
    timeout server {{.Seconds}}s

frontend http
    bind {{.Listen}}
    default_backend php

backend php
    use-fcgi-app php
    http-reuse {{if .Keepalive}}always{{else}}never{{end}}
    server php {{if eq .FastCGI.Network "unix"}}unix@{{end}}{{.FastCGI.Address}} proto fcgi
{{- if .Keepalive}} pool-max-conn {{.Keepalive}}{{end}}
    {{.Settings}}

fcgi-app php
    log-stderr global
    docroot {{.DocRoot}}
    path-info ^(/.+\.php)(/.*)?$
    {{if not .Keepalive}}no {{end}}option keep-conn
{{- if .Multiplex}}
    option mpxs-conns
    option max-reqs {{.Multiplex}}
{{- end}}
    {{if not .AskValues}}no {{end}}option get-values
{{end}}`))
