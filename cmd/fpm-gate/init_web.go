package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pass is a place in a web server's configuration that sends requests to PHP-FPM.
type pass struct {
	address string   // as a config has it
	folders []string // whose scripts it may run
	file    string
	line    int // from 1
}

// webServers reads the configuration of nginx and Apache, as far as it is there and can be read.
func webServers(system *systemFiles) []pass {
	return append(nginxPasses(system), apachePasses(system)...)
}

// nginxTimeout is for nginx -T, which opens the log files of all sites.
const nginxTimeout = 10 * time.Second

// nginxPasses returns the passes of nginx.
func nginxPasses(system *systemFiles) []pass {
	n := &nginxReader{system: system, folder: "/etc/nginx", upstreams: map[string][]pass{}}
	main := system.path("etc/nginx/nginx.conf")
	// nginx knows where its configuration is, but only on this machine, and as root.
	if system.root == "/" {
		n.dump()
	}
	if len(n.files) > 0 {
		main = n.first
	} else if _, err := os.Stat(main); err != nil || !system.mayRead(main) {
		return nil
	}
	n.read(main, nginxBlock{})
	return n.resolve()
}

// nginxReader reads nginx's configuration.
type nginxReader struct {
	system    *systemFiles
	files     map[string]string // of nginx -T; empty: they are read from the disk
	first     string            // of them
	folder    string            // of nginx.conf, below the machine's root
	passes    []pass
	upstreams map[string][]pass // their servers, by name
	depth     int               // of includes
	later     []func()          // what takes the whole configuration to know
}

// nginxBlock is what is known in a block, and in those within.
type nginxBlock struct {
	kind, name string
	site       *nginxSite // the server, or what is around it
}

// nginxSite is what is known of the folders of a server, or of the http block.
type nginxSite struct {
	folders []string   // roots, aliases and what fastcgi_param names, in the block and its locations
	root    string     // of the block itself; "": it has none
	params  []string   // folders that fastcgi_param names
	given   bool       // fastcgi_param is there, whatever it names
	outer   *nginxSite // what a server inherits from; nil: nothing
}

// all returns the folders whose scripts the server may run. Of the http block it inherits what it does not have: a
// root, and fastcgi_param.
func (s *nginxSite) all() []string {
	all := slices.Clone(s.folders)
	if s.outer == nil {
		return all
	}
	if s.root == "" && s.outer.root != "" {
		all = append(all, s.outer.root)
	}
	if !s.given {
		all = append(all, s.outer.params...)
	}
	return all
}

// dump asks nginx for its configuration. It may not be there, or not be allowed to us.
func (n *nginxReader) dump() {
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program = "/usr/sbin/nginx"; !isFile(program) {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), nginxTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "-T").Output() // all files, includes resolved; it changes nothing
	if err != nil {
		return // it needs root; the files may be readable all the same
	}
	n.dumped(string(out))
}

// dumped takes the output of nginx -T: all files, each after its name, nginx.conf first.
func (n *nginxReader) dumped(text string) {
	n.files = map[string]string{}
	const head = "# configuration file "
	var file string
	for line := range strings.Lines(text) {
		if name, is := strings.CutPrefix(line, head); is {
			file = strings.TrimSuffix(strings.TrimSpace(name), ":")
			if n.first == "" {
				n.first, n.folder = file, filepath.Dir(file)
			}
			n.files[file] = ""
			continue
		}
		n.files[file] += line
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// text returns a file of the configuration.
func (n *nginxReader) text(file string) (string, bool) {
	if len(n.files) > 0 {
		text, is := n.files[file]
		return text, is
	}
	if !n.system.mayRead(file) {
		return "", false
	}
	text, err := os.ReadFile(file)
	return string(text), err == nil
}

// maxIncludes is far deeper than any configuration includes files.
const maxIncludes = 10

// read reads a file that is included within a block. Where a block ends in another file than it began, which nginx
// refuses, the end is passed over.
func (n *nginxReader) read(file string, in nginxBlock) {
	text, ok := n.text(file)
	if !ok || n.depth > maxIncludes {
		return
	}
	n.depth++ // a file may include itself
	defer func() { n.depth-- }()
	blocks := []nginxBlock{in}
	for words, line := range nginxWords(text) {
		top := blocks[len(blocks)-1]
		switch end := words[len(words)-1]; {
		case end == "}":
			if len(blocks) > 1 {
				blocks = blocks[:len(blocks)-1]
			}
		case end == "{":
			blocks = append(blocks, top.open(words))
		default:
			n.directive(top, words[:len(words)-1], file, line)
		}
	}
}

// open returns the block that begins with these words.
func (b nginxBlock) open(words []string) nginxBlock {
	inner := nginxBlock{kind: words[0], site: b.site}
	if len(words) > 2 {
		inner.name = words[1]
	}
	if inner.kind == "http" || inner.kind == "server" { // locations add to the folders of their server
		inner.site = &nginxSite{outer: b.site}
	}
	return inner
}

// directive notes what a directive has to do with PHP. Directives that are not listed do not decide which PHP-FPM runs
// which scripts.
func (n *nginxReader) directive(in nginxBlock, words []string, file string, line int) {
	if len(words) < 2 {
		return
	}
	switch words[0] {
	case "include":
		for _, included := range n.included(words[1]) {
			n.read(included, in)
		}
	case "root", "alias", "fastcgi_param":
		if in.site != nil {
			in.site.addFolder(in.kind, words)
		}
	case "server":
		if in.kind == "upstream" {
			server := pass{address: nginxAddress(words[1]), file: file, line: line}
			n.upstreams[in.name] = append(n.upstreams[in.name], server)
		}
	case "fastcgi_pass":
		if strings.Contains(words[1], "$") {
			n.system.note("%s:%d: fastcgi_pass depends on a variable; compare the pools yourself", file, line)
			return
		}
		n.passes = append(n.passes, pass{address: nginxAddress(words[1]), file: file, line: line})
		n.keepFolders(in.site)
	}
}

// addFolder adds the folder that a directive names in a block of that kind.
func (s *nginxSite) addFolder(kind string, words []string) {
	folder := words[1]
	if words[0] == "fastcgi_param" {
		s.given = true
		if folder = paramFolder(words[1:]); folder == "" {
			return
		}
		s.params = append(s.params, folder)
	} else if words[0] == "root" && (kind == "server" || kind == "http") {
		s.root = folder
	}
	s.folders = append(s.folders, folder)
}

// paramFolder returns the folder that a fastcgi_param names as PHP's own; "": it names none, or by a variable.
func paramFolder(words []string) string {
	if len(words) < 2 || words[0] != "SCRIPT_FILENAME" && words[0] != "DOCUMENT_ROOT" {
		return ""
	}
	folder, _, variable := strings.Cut(words[1], "$")
	if words[0] == "SCRIPT_FILENAME" && !variable { // one script
		folder = filepath.Dir(folder)
	}
	if folder = strings.TrimRight(folder, "/"); !strings.HasPrefix(folder, "/") {
		return ""
	}
	return folder
}

// keepFolders has the last pass have the folders of its server, some of which may come after it.
func (n *nginxReader) keepFolders(site *nginxSite) {
	i := len(n.passes) - 1
	if site == nil {
		return
	}
	n.later = append(n.later, func() { n.passes[i].folders = site.all() })
}

// included returns the files of an include.
func (n *nginxReader) included(pattern string) (files []string) {
	if !strings.HasPrefix(pattern, "/") { // relative to nginx.conf, wherever the including file is
		pattern = filepath.Join(n.folder, pattern)
	}
	if len(n.files) == 0 {
		return n.system.glob(pattern)
	}
	for file := range n.files {
		if is, _ := filepath.Match(pattern, file); is {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// nginxAddress returns an address of nginx as a config of ours has it. localhost becomes what a pool has, with whose
// address it is compared.
func nginxAddress(s string) string {
	if path, is := strings.CutPrefix(s, "unix:"); is {
		return "unix:" + strings.TrimSuffix(path, ":")
	}
	return strings.Replace(s, "localhost:", "127.0.0.1:", 1)
}

// resolve returns the passes, of which those to an upstream are that one's servers. An address that is no upstream's
// name is one of PHP-FPM itself.
func (n *nginxReader) resolve() (all []pass) {
	for _, f := range n.later {
		f()
	}
	for _, p := range n.passes {
		servers := n.upstreams[p.address]
		if len(servers) == 0 {
			all = append(all, p)
		}
		for _, s := range servers {
			s.folders = p.folders
			all = append(all, s)
		}
	}
	return all
}

// nginxWords yields the statements of a configuration, each with the line where it ends, and with ";", "{" or "}" as
// its last word. Comments and quotes are gone. A statement may go over several lines; its last one usually has the
// address.
func nginxWords(text string) func(yield func([]string, int) bool) {
	return func(yield func([]string, int) bool) {
		var words []string
		line := 1
		for _, m := range nginxToken.FindAllString(text, -1) {
			switch {
			case strings.HasPrefix(m, "#") || strings.TrimSpace(m) == "":
			case m == ";" || m == "{" || m == "}":
				if !yield(append(words, m), line) {
					return
				}
				words = nil
			default:
				words = append(words, strings.Trim(m, `"'`))
			}
			line += strings.Count(m, "\n")
		}
	}
}

// A comment, white space, an end, a quoted word, or a plain one, at whose start ${name} is no block. A # begins a
// comment only at the start of a word.
var nginxToken = regexp.MustCompile(`#[^\n]*|\s+|[;{}]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'` +
	`|(?:\$\{[^}]*\}|[^\s;{}#"'])[^\s;{}"']*`)

// apacheFiles are where Apache's configuration is; those that are enabled.
var apacheFiles = []string{
	"etc/apache2/apache2.conf", "etc/apache2/conf-enabled/*.conf", "etc/apache2/sites-enabled/*.conf",
	"etc/httpd/conf/httpd.conf", "etc/httpd/conf.d/*.conf",
}

var (
	// A handler or a rule that passes requests on, or a <Proxy> block that says how, whose socket counts for both.
	apacheProxy  = regexp.MustCompile(`\bunix:([^|"\s]+)\|fcgi:|\bfcgi://([^/"\s>]+)`)
	apacheFolder = regexp.MustCompile(`(?i)^\s*(?:DocumentRoot|Alias\s+\S+)\s+"?([^"]+?)"?\s*$`)
)

// apachePasses returns the passes of Apache. Each may run the scripts of all folders of all sites. Which site has which
// handler takes Apache's rules of merging, which are not followed here.
func apachePasses(system *systemFiles) (all []pass) {
	var folders []string
	for _, pattern := range apacheFiles {
		for _, file := range system.glob(pattern) {
			text, err := os.ReadFile(file)
			if err != nil {
				system.mayRead(file) // notes it if the reason is a missing right
				continue
			}
			n := 0
			for line := range strings.Lines(string(text)) {
				n++
				if strings.HasPrefix(strings.TrimSpace(line), "#") {
					continue
				}
				if f := apacheFolder.FindStringSubmatch(strings.TrimRight(line, "\r\n")); f != nil {
					folders = append(folders, f[1])
				}
				if f := apacheProxy.FindStringSubmatch(line); f != nil {
					all = append(all, pass{address: apacheAddress(f), file: file, line: n})
				}
			}
		}
	}
	for i := range all {
		all[i].folders = folders
	}
	return all
}

// apacheAddress returns the address that apacheProxy has found.
func apacheAddress(found []string) string {
	if found[1] != "" {
		return "unix:" + found[1]
	}
	return nginxAddress(found[2])
}
