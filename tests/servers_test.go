package tests

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// webServer is a way for a browser to reach FastCGI.
type webServer struct {
	name      string
	program   string
	start     func(*testing.T, *rig.Rig, *rig.Site) (log func() string)
	keepalive int
	quiet     bool // it does not log what comes on stderr
	// aborts is what it logs of a response that it knows to be cut short, and
	// passes on as if it were whole.
	aborts string
	// loses is set if a long response that comes to it whole sometimes fails.
	loses bool
}

// webServers are all that the gate has to serve. Caddy is Debian 12's, 2.6. The
// cgi-fcgi of libfcgi 2.4.5 takes data for the header of a record in one of fifty
// responses of 20 MB that come straight from PHP-FPM, and ends with exit code 254.
var webServers = []webServer{
	{name: "nginx", program: "nginx", start: startNginx},
	{name: "nginx that keeps connections", program: "nginx", start: startNginx, keepalive: 3},
	{name: "apache", program: "apache2", start: server((*rig.Rig).Apache)},
	{name: "apache that keeps connections", program: "apache2", start: server((*rig.Rig).Apache), keepalive: 3},
	{name: "lighttpd", program: "lighttpd", start: server((*rig.Rig).Lighttpd)},
	{name: "caddy", program: "caddy", start: server((*rig.Rig).Caddy), quiet: true, aborts: "aborting with incomplete response"},
	{name: "haproxy", program: "haproxy", start: server((*rig.Rig).HAProxy)},
	{name: "haproxy that keeps connections", program: "haproxy", start: server((*rig.Rig).HAProxy), keepalive: 3},
	{name: "cgi-fcgi", program: "cgi-fcgi", start: startCGI, loses: true},
}

func startNginx(t *testing.T, r *rig.Rig, site *rig.Site) func() string {
	return rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}}).Log
}

// server makes one of the rig's web servers that serve one site a webServer.start.
func server(start func(*rig.Rig, *rig.Site) (*rig.Server, error)) func(*testing.T, *rig.Rig, *rig.Site) func() string {
	return func(t *testing.T, r *rig.Rig, site *rig.Site) func() string {
		s, err := start(r, site)
		if err != nil {
			t.Fatal(err)
		}
		return s.Log
	}
}

// cgiServer runs cgi-fcgi for each request, as a web server would that knows
// nothing but CGI.
type cgiServer struct {
	program string
	site    *rig.Site
	log     *os.File
}

func startCGI(t *testing.T, r *rig.Rig, site *rig.Site) func() string {
	program, err := rig.Find("cgi-fcgi")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "cgi-fcgi")
	if err != nil {
		t.Fatal(err)
	}
	site.DocRoot = r.DocRoot
	web := httptest.NewServer(&cgiServer{program, site, log})
	t.Cleanup(web.Close)
	site.Listen = rig.ParseAddr(web.Listener.Addr().String())
	text := func() string {
		text, _ := os.ReadFile(log.Name())
		return string(text)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of cgi-fcgi:\n%s", text())
		}
	})
	return text
}

// ServeHTTP passes a request on. CGI has no other way to tell of a response that
// was cut short than the program's exit code.
func (c *cgiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cmd := exec.CommandContext(r.Context(), c.program, "-bind", "-connect", c.site.FastCGI.Address)
	cmd.Env = c.env(r)
	cmd.Stdin = r.Body
	cmd.Stderr = c.log
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	err = passCGI(w, stdout)
	if exit := cmd.Wait(); err != nil || exit != nil {
		fmt.Fprintf(c.log, "%s %s: pass the response on: %v; %s: %v\n", r.Method, r.URL, err, c.program, exit)
		panic(http.ErrAbortHandler)
	}
}

func (c *cgiServer) env(r *http.Request) []string {
	script, info := r.URL.Path, ""
	if i := strings.Index(script, ".php/"); i >= 0 {
		script, info = script[:i+4], script[i+4:]
	}
	env := []string{
		"GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=" + r.Proto, "REDIRECT_STATUS=200",
		"REQUEST_METHOD=" + r.Method, "REQUEST_URI=" + r.RequestURI, "QUERY_STRING=" + r.URL.RawQuery,
		"SCRIPT_NAME=" + script, "PATH_INFO=" + info, "DOCUMENT_ROOT=" + c.site.DocRoot,
		"SCRIPT_FILENAME=" + filepath.Join(c.site.DocRoot, script),
		"HTTP_HOST=" + r.Host,
	}
	if r.ContentLength > 0 {
		env = append(env, "CONTENT_TYPE="+r.Header.Get("Content-Type"), fmt.Sprintf("CONTENT_LENGTH=%d", r.ContentLength))
	}
	for name, values := range r.Header {
		name = strings.ReplaceAll(strings.ToUpper(name), "-", "_")
		env = append(env, "HTTP_"+name+"="+strings.Join(values, ", "))
	}
	return env
}

// passCGI passes a CGI response on as it comes.
func passCGI(w http.ResponseWriter, cgi io.Reader) error {
	stdout := bufio.NewReader(cgi)
	header, err := textproto.NewReader(stdout).ReadMIMEHeader()
	if err != nil {
		return err
	}
	status := http.StatusOK
	if line := header.Get("Status"); line != "" {
		if status, err = strconv.Atoi(line[:min(3, len(line))]); err != nil {
			return err
		}
	}
	header.Del("Status")
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	_, err = io.Copy(flushing{w}, stdout)
	return err
}

// flushing passes each write on at once.
type flushing struct{ http.ResponseWriter }

func (w flushing) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(w.ResponseWriter).Flush()
}
