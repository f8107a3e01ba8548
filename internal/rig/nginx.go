package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"text/template"

	"golang.org/x/sys/unix"
)

// NginxOptions configure an nginx. It needs at least one site or relay.
type NginxOptions struct {
	Name        string
	Workers     int // processes; 1 if zero
	Connections int // of a worker, to both sides together; 4096 if zero
	Sites       []*Site
	Relays      []*Relay
	HTTP        string // more lines of the http section
	Main        string // more lines of the outermost level
}

// Relay is an address whose connections nginx's stream module copies to another: what a gate that does nothing would
// cost.
type Relay struct {
	Listen Addr // Unix if zero; filled in by the start
	To     Addr
}

// Nginx starts an nginx.
func (r *Rig) Nginx(o NginxOptions) (*Server, error) {
	path, err := Find("nginx")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: o.Name, removeSockets: true}
	if err := r.add("nginx", s); err != nil {
		return nil, err
	}
	if err := o.complete(r, s); err != nil {
		return nil, fmt.Errorf("configure %s: %w", s.Name, err)
	}
	if err := o.writeConfig(s, path); err != nil {
		return nil, fmt.Errorf("configure %s: %w", s.Name, err)
	}
	// -e: where to log until the configuration is read.
	s.cmd = command{path: path, args: []string{"-e", "stderr", "-p", s.dir, "-c", s.file("nginx.conf")}}
	return s, s.Start()
}

// complete fills in what the options leave open.
func (o *NginxOptions) complete(r *Rig, s *Server) (err error) {
	o.Workers = max(o.Workers, 1)
	if o.Connections == 0 {
		o.Connections = 4096
	}
	for _, site := range o.Sites {
		if err := site.complete(r); err != nil {
			return err
		}
		s.listen = append(s.listen, site.Listen)
	}
	for _, relay := range o.Relays {
		if relay.Listen, err = r.choose(relay.Listen, Unix, s.Name); err != nil {
			return err
		}
		s.listen = append(s.listen, relay.Listen)
	}
	if s.listen == nil {
		return errors.New("nginx needs a site or a relay")
	}
	s.Addr = s.listen[0]
	return nil
}

var nginxConfig = template.Must(template.New("nginx.conf").Parse(`
{{- if .StreamModule}}load_module {{.StreamModule}};
{{end}}
{{- if .Root}}user root;
{{end -}}
daemon off;
pid {{.Dir}}/pid;
error_log {{.Log}} warn;
worker_processes {{.Workers}};
worker_rlimit_nofile {{.Files}};
events { worker_connections {{.Connections}}; }
{{.Main}}
{{if .Sites}}http {
    access_log off;
    client_body_temp_path {{.Dir}}/body;
    fastcgi_temp_path {{.Dir}}/fastcgi;
    proxy_temp_path {{.Dir}}/proxy;
    scgi_temp_path {{.Dir}}/scgi;
    uwsgi_temp_path {{.Dir}}/uwsgi;
    client_max_body_size 128m;
    large_client_header_buffers 4 64k;
    keepalive_requests 1000000;
    tcp_nodelay on;
{{.HTTP}}
{{- range $i, $site := .Sites}}{{with $site}}
{{if .Keepalive}}    upstream fastcgi{{$i}} {
        server {{.FastCGI}};
        keepalive {{.Keepalive}};
        keepalive_requests 1000000;
    }
{{end}}    server {
        listen {{.Listen}} backlog=4096;
        root {{.DocRoot}};
        location ~ \.php(/|$) {
            fastcgi_split_path_info ^(.+?\.php)(/.*)?$;
            fastcgi_pass {{if .Keepalive}}fastcgi{{$i}}{{else}}{{.FastCGI}}{{end}};
{{- if .Keepalive}}
            fastcgi_keep_conn on;
{{- end}}
{{- if .Unbuffered}}
            fastcgi_buffering off;
            fastcgi_request_buffering off;
{{- end}}
            fastcgi_read_timeout {{.Seconds}}s;
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
            fastcgi_param SCRIPT_NAME $fastcgi_script_name;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param DOCUMENT_URI $document_uri;
            fastcgi_param DOCUMENT_ROOT $document_root;
            fastcgi_param SERVER_PROTOCOL $server_protocol;
            fastcgi_param REQUEST_SCHEME $scheme;
            fastcgi_param GATEWAY_INTERFACE CGI/1.1;
            fastcgi_param SERVER_SOFTWARE nginx/$nginx_version;
            fastcgi_param REMOTE_ADDR $remote_addr;
            fastcgi_param REMOTE_PORT $remote_port;
            fastcgi_param SERVER_ADDR $server_addr;
            fastcgi_param SERVER_PORT $server_port;
            fastcgi_param SERVER_NAME $server_name;
            fastcgi_param REDIRECT_STATUS 200;
            {{.Settings}}
        }
    }
{{- end}}{{end}}
}
{{end}}
{{- if .Relays}}stream {
{{- range .Relays}}
    server {
        listen {{.Listen}} backlog=4096;
        proxy_pass {{.To}};
    }
{{- end}}
}
{{end}}`))

func (o *NginxOptions) writeConfig(s *Server, nginx string) (err error) {
	module := ""
	if o.Relays != nil {
		if module, err = streamModule(nginx); err != nil {
			return err
		}
	}
	files, err := fileLimit(2 * o.Connections)
	if err != nil {
		return err
	}
	return writeTemplate(s.file("nginx.conf"), nginxConfig, map[string]any{
		"Dir": s.dir, "Log": s.LogFile(), "Root": os.Geteuid() == 0,
		"Workers": o.Workers, "Connections": o.Connections, "Files": files,
		"Sites": o.Sites, "HTTP": o.HTTP, "Main": o.Main,
		"Relays": o.Relays, "StreamModule": module,
	})
}

// streamModules are where distributions keep nginx's stream module.
var streamModules = []string{
	"/usr/lib/nginx/modules/ngx_stream_module.so",
	"/usr/lib64/nginx/modules/ngx_stream_module.so",
	"/usr/share/nginx/modules/ngx_stream_module.so",
}

var builtWithStream = regexp.MustCompile(`--with-stream(\s|$)`)

// streamModule returns the module to load, or "" where nginx has it built in.
func streamModule(nginx string) (string, error) {
	version, err := exec.Command(nginx, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask nginx how it was built: %w", err)
	}
	if builtWithStream.Match(version) {
		return "", nil
	}
	return Find("nginx-stream")
}

// fileLimit returns how many open files a server may be given, at most wanted.
func fileLimit(wanted int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(uint64(wanted), limit.Max)), nil
}
