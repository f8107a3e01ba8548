package rig

import (
	"errors"
	"fmt"
	"maps"
	"text/template"
)

// webServer describes how to run a web server with one site.
type webServer struct {
	program    string             // the name that Find knows
	config     *template.Template // of Site, Dir, Log and values
	keepsConns bool               // it can keep connections to FastCGI open
	command    func(s *Server, path, config string) command
	values     func(s *Server) (map[string]any, error) // may be nil
}

// web starts a web server with one site.
func (r *Rig) web(kind string, w webServer, site *Site) (*Server, error) {
	path, err := Find(w.program)
	if err != nil {
		return nil, err
	}
	s := &Server{}
	if err := r.add(kind, s); err != nil {
		return nil, err
	}
	if err := w.configure(r, s, site); err != nil {
		return nil, fmt.Errorf("configure %s: %w", s.Name, err)
	}
	s.cmd = w.command(s, path, s.file("config"))
	return s, s.Start()
}

func (w webServer) configure(r *Rig, s *Server, site *Site) error {
	if err := site.complete(r); err != nil {
		return err
	}
	if site.Keepalive > 0 && !w.keepsConns {
		return errors.New("it cannot keep FastCGI connections")
	}
	s.Addr = site.Listen
	s.listen = []Addr{s.Addr}
	values := map[string]any{"Site": site, "Dir": s.dir, "Log": s.LogFile()}
	if w.values != nil {
		more, err := w.values(s)
		if err != nil {
			return err
		}
		maps.Copy(values, more)
	}
	return writeTemplate(s.file("config"), w.config, values)
}
