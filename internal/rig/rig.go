// Package rig starts the real programs around fpm-gate in one folder: PHP-FPM with a set of scripts, web servers in
// front of it, the stores of PHP's sessions, and the gate between them. They run in the foreground as the current user,
// root or not, on loopback ports and Unix sockets, and touch neither the system's services nor their configuration.
//
// The demo, the end-to-end tests and the benchmark use it, so it does not import package testing;
// [github.com/fpm-gate/fpm-gate/internal/rig/rigtest] ties it to a test. It runs on Linux.
package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Rig is a folder with servers. Its methods can be called at the same time; those that start a server return when the
// server answers.
type Rig struct {
	// DocRoot is the folder of the PHP scripts that every pool and every site uses unless told otherwise.
	DocRoot string

	dir      string
	remove   []string // folders that Close removes
	sockets  string   // folder of Unix sockets, short enough for their limit
	reserved []reservation

	mu      sync.Mutex
	names   map[string]int // by name: how many servers have it, or have it as a prefix
	servers []*Server
	closed  bool
}

// New returns a rig that keeps everything in dir, which must exist. With an empty dir it creates a temporary folder,
// which Close removes.
func New(dir string) (*Rig, error) {
	r := &Rig{names: map[string]int{}}
	if err := r.makeFolders(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("make the rig's folders: %w", err), r.Close())
	}
	return r, nil
}

func (r *Rig) makeFolders(dir string) (err error) {
	if dir == "" {
		if dir, err = r.tempFolder(); err != nil {
			return err
		}
	}
	if r.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	r.sockets = r.dir
	if len(r.dir) > maxSocketFolder {
		if r.sockets, err = r.tempFolder(); err != nil {
			return err
		}
	}
	r.DocRoot = filepath.Join(r.dir, "www")
	return writeScripts(r.DocRoot)
}

func (r *Rig) tempFolder() (string, error) {
	dir, err := os.MkdirTemp("", "fpm-gate-rig-")
	if err == nil {
		r.remove = append(r.remove, dir)
	}
	return dir, err
}

// Dir returns the rig's folder. Each server keeps its files in a folder of its own name there.
func (r *Rig) Dir() string { return r.dir }

// Servers returns all servers in the order of their first start, stopped ones included.
func (r *Rig) Servers() []*Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.servers)
}

// Close stops all servers, the last one started first, and gives the reserved ports back. Its error names those that
// had to be killed. It can be called while servers are being started, as on an interrupt; no server starts after it.
func (r *Rig) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	var errs []error
	for _, s := range slices.Backward(r.Servers()) {
		errs = append(errs, s.Stop())
	}
	errs = append(errs, r.releasePorts())
	for _, dir := range r.remove {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

func (r *Rig) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// add gives a server its name and folder and adds it to the rig.
func (r *Rig) add(kind string, s *Server) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[kind]++
	if s.Name == "" {
		s.Name = kind
		if n := r.names[kind]; n > 1 {
			s.Name = fmt.Sprintf("%s-%d", kind, n)
		}
	}
	if strings.ContainsRune(s.Name, filepath.Separator) {
		return fmt.Errorf("a server's name is a folder's too; got %q", s.Name)
	}
	s.rig, s.dir = r, filepath.Join(r.dir, s.Name)
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", s.Name, err)
	}
	r.servers = append(r.servers, s)
	return nil
}
