package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"
)

// PHPFPM is a PHP-FPM with one pool. It reads the system's php.ini, loads the extensions that keep sessions, and keeps
// its sessions, uploads and logs in its own folder.
type PHPFPM struct {
	*Server
	// Sessions is the folder of its session files, unless INI says otherwise.
	Sessions string

	status    Addr
	ownStatus bool // it has a process of its own for its status, as since PHP 8.0
}

// statusListen is the setting that has PHP-FPM answer for its status on a socket of its own.
const statusListen = "pm.status_listen"

// The pages of PHP-FPM itself, on its Addr like any script.
const (
	StatusPath = "/fpm-status" // pm.status_path
	PingPath   = "/fpm-ping"   // ping.path: answers pong
)

// PHPOptions configure the pool. The zero value is a pool of four workers on a Unix socket.
type PHPOptions struct {
	Name        string
	Listen      Addr // Unix if zero
	Workers     int  // processes, all started at once (pm = static)
	MaxRequests int  // of a worker, which is replaced then; 0: no limit
	// AllExtensions loads all extensions of the system, as a site does. That takes twice the time, for each worker too.
	AllExtensions bool
	// INI are settings that PHP reads after the system's php.ini; the values are taken as they are. See
	// [MemcachedSessions] and [RedisSessions].
	INI map[string]string
	// Pool are more lines of the pool's section, Global those of the global one.
	Pool, Global string
}

// PHPFPM starts a PHP-FPM.
func (r *Rig) PHPFPM(o PHPOptions) (*PHPFPM, error) {
	if o.Workers == 0 {
		o.Workers = 4
	}
	program, err := phpProgram()
	if err != nil {
		return nil, err
	}
	p := &PHPFPM{Server: &Server{Name: o.Name}, ownStatus: program.ownStatus}
	if err := r.add("php-fpm", p.Server); err != nil {
		return nil, err
	}
	if err := p.chooseAddrs(r, o.Listen); err != nil {
		return nil, err
	}
	if err := p.writeConfig(o, program); err != nil {
		return nil, fmt.Errorf("configure %s: %w", p.Name, err)
	}
	p.cmd = p.command(program.path)
	p.ready = p.ping
	return p, p.Start()
}

func (p *PHPFPM) chooseAddrs(r *Rig, listen Addr) (err error) {
	if p.Addr, err = r.choose(listen, Unix, p.Name); err != nil {
		return err
	}
	if !p.ownStatus {
		p.status, p.listen = p.Addr, []Addr{p.Addr}
		return nil
	}
	if p.status, err = r.Reserve("unix", p.Name+"-status"); err != nil {
		return err
	}
	p.listen = []Addr{p.Addr, p.status}
	return nil
}

func (p *PHPFPM) command(path string) command {
	args := []string{"--nodaemonize", "--fpm-config", p.file("fpm.conf")}
	if os.Geteuid() == 0 {
		args = append(args, "--allow-to-run-as-root")
	}
	return command{path: path, args: args, env: []string{"PHP_INI_SCAN_DIR=" + p.file("ini")}}
}

// installedPHP is the PHP-FPM of the system.
type installedPHP struct {
	path      string
	ownStatus bool // it knows statusListen

	// The files that load its extensions: all, and those that keep sessions or that scripts of the tests use.
	extensions, keepSessions []string
}

// phpProgram looks at the PHP-FPM of the system, once.
var phpProgram = sync.OnceValues(func() (installedPHP, error) {
	path, err := Find("php-fpm")
	if err != nil {
		return installedPHP{}, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return installedPHP{}, err
	}
	info, err := exec.Command(path, "-i").Output()
	if err != nil {
		return installedPHP{}, fmt.Errorf("%s -i: %w", path, err)
	}
	installed := installedPHP{path: path, ownStatus: bytes.Contains(program, []byte(statusListen))}
	folder := regexp.MustCompile(`(?m)^Scan this dir for additional \.ini files => (/.*)$`).FindSubmatch(info)
	if folder == nil {
		return installed, nil
	}
	if installed.extensions, err = filepath.Glob(filepath.Join(string(folder[1]), "*.ini")); err != nil {
		return installedPHP{}, err
	}
	some := regexp.MustCompile(
		`/(\d+-)?(opcache|igbinary|json|memcached|msgpack|mysqlnd|pdo(_mysql|_sqlite)?|posix|redis)\.ini$`)
	for _, file := range installed.extensions {
		if some.MatchString(file) {
			installed.keepSessions = append(installed.keepSessions, file)
		}
	}
	return installed, nil
})

// loadExtensions has PHP-FPM read files that load extensions. PHP reads a folder's files in the order of their names.
func (p *PHPFPM) loadExtensions(files []string) error {
	for _, file := range files {
		if err := os.Symlink(file, filepath.Join(p.file("ini"), filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
}

// poolConfig has only the settings in which a rig must differ from PHP-FPM's defaults.
var poolConfig = template.Must(template.New("fpm.conf").Parse(`[global]
error_log = {{.Log}}
pid = {{.Dir}}/pid
{{.Global}}

[www]
{{- if .Root}}
user = root
group = root
{{- end}}
listen = {{.Listen}}
listen.mode = 0666
pm = static
pm.max_children = {{.Workers}}
pm.max_requests = {{.MaxRequests}}
pm.status_path = {{.StatusPath}}
{{- if .StatusListen}}
{{.StatusListen}}
{{- end}}
ping.path = {{.PingPath}}
catch_workers_output = yes
decorate_workers_output = no
{{.Pool}}
`))

func (p *PHPFPM) writeConfig(o PHPOptions, program installedPHP) error {
	p.Sessions = p.file("sessions")
	for _, dir := range []string{p.Sessions, p.file("tmp"), p.file("ini")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	extensions := program.keepSessions
	if o.AllExtensions {
		extensions = program.extensions
	}
	if err := p.loadExtensions(extensions); err != nil {
		return err
	}
	ini := map[string]string{
		"session.save_path":   p.Sessions,
		"sys_temp_dir":        p.file("tmp"),
		"post_max_size":       "128M",
		"upload_max_filesize": "128M",
	}
	maps.Copy(ini, o.INI)
	if err := os.WriteFile(p.file("ini/rig.ini"), iniFile(ini), 0o644); err != nil {
		return err
	}
	ownStatus := ""
	if p.ownStatus {
		ownStatus = statusListen + " = " + p.status.Address
	}
	return writeTemplate(p.file("fpm.conf"), poolConfig, map[string]any{
		"Dir": p.dir, "Log": p.LogFile(), "Root": os.Geteuid() == 0,
		"Listen": p.Addr.Address, "StatusListen": ownStatus,
		"Workers": o.Workers, "MaxRequests": o.MaxRequests,
		"StatusPath": StatusPath, "PingPath": PingPath, "Pool": o.Pool, "Global": o.Global,
	})
}

func iniFile(settings map[string]string) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(settings[name])
		fmt.Fprintf(&b, "%s = \"%s\"\n", name, value)
	}
	return []byte(b.String())
}

func (p *PHPFPM) ping(ctx context.Context) error {
	_, err := fastcgiGet(ctx, p.Addr, PingPath, "")
	return err
}

// Status is PHP-FPM's status page.
type Status struct {
	Accepted     int `json:"accepted conn"`    // connections since the start
	Queue        int `json:"listen queue"`     // connections that no worker has accepted yet
	MaxQueue     int `json:"max listen queue"` // the most of them since the start
	Idle         int `json:"idle processes"`   // workers that wait for a connection
	Active       int `json:"active processes"` // workers that have one
	MaxActive    int `json:"max active processes"`
	SlowRequests int `json:"slow requests"`
}

// Status requests PHP-FPM's figures. PHP-FPM has a separate socket and process for that, so it answers while all
// workers are busy; but before PHP 8.0 a worker answers.
func (p *PHPFPM) Status(ctx context.Context) (Status, error) {
	var st Status
	page, err := fastcgiGet(ctx, p.status, StatusPath, "json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(page, &st); err != nil {
		return st, fmt.Errorf("read the status of %s: %w", p.Name, err)
	}
	return st, nil
}

// Worker is a process in PHP-FPM's full status page.
type Worker struct {
	State string `json:"state"`       // "Running" while a script runs
	URI   string `json:"request uri"` // of its request, or of its last one
}

// Workers requests the state of each of PHP-FPM's processes.
func (p *PHPFPM) Workers(ctx context.Context) ([]Worker, error) {
	page, err := fastcgiGet(ctx, p.status, StatusPath, "full&json")
	if err != nil {
		return nil, err
	}
	var full struct {
		Workers []Worker `json:"processes"`
	}
	if err := json.Unmarshal(page, &full); err != nil {
		return nil, fmt.Errorf("read the full status of %s: %w", p.Name, err)
	}
	return full.Workers, nil
}

// file returns the path of a file in the server's folder.
func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func writeTemplate(path string, t *template.Template, data any) error {
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
