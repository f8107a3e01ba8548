package rig

import (
	"os"
	"syscall"
)

// StoreOptions configure a store of sessions or locks.
type StoreOptions struct {
	Name   string
	Listen Addr     // TCP if zero
	Args   []string // more arguments of the program
}

// Memcached starts a memcached.
func (r *Rig) Memcached(o StoreOptions) (*Server, error) {
	// It handles SIGTERM only once a second, and has nothing to write when it ends.
	ended := command{stop: syscall.SIGKILL}
	return r.store("memcached", "memcached", ended, o, func(a Addr) []string {
		args := []string{"-U", "0"} // no UDP
		if os.Geteuid() == 0 {
			args = append(args, "-u", "root")
		}
		if a.Network == "unix" {
			return append(args, "-s", a.Address, "-a", "0666")
		}
		return append(args, "-l", a.Host(), "-p", a.Port())
	})
}

// Redis starts a Redis that writes nothing to disk.
func (r *Rig) Redis(o StoreOptions) (*Server, error) {
	return r.store("redis-server", "redis", command{}, o, func(a Addr) []string {
		args := []string{"--save", "", "--appendonly", "no"}
		if a.Network == "unix" {
			return append(args, "--port", "0", "--unixsocket", a.Address, "--unixsocketperm", "666")
		}
		return append(args, "--bind", a.Host(), "--port", a.Port())
	})
}

func (r *Rig) store(program, kind string, cmd command, o StoreOptions, args func(Addr) []string) (*Server, error) {
	path, err := Find(program)
	if err != nil {
		return nil, err
	}
	s := &Server{Name: o.Name}
	if err := r.add(kind, s); err != nil {
		return nil, err
	}
	if s.Addr, err = r.choose(o.Listen, TCP, s.Name); err != nil {
		return nil, err
	}
	s.listen = []Addr{s.Addr}
	s.cmd = cmd
	s.cmd.path, s.cmd.args = path, append(args(s.Addr), o.Args...)
	return s, s.Start()
}

// MemcachedSessions are the [PHPOptions].INI that keep PHP's sessions in a memcached by the extension php-memcached,
// whose locking is on by default.
func MemcachedSessions(s *Server) map[string]string {
	return map[string]string{
		"session.save_handler": "memcached",
		"session.save_path":    s.Addr.Address,
	}
}

// RedisSessions are the [PHPOptions].INI that keep PHP's sessions in a Redis by the extension phpredis, with its own
// locking or, as is its default, without.
func RedisSessions(s *Server, locking bool) map[string]string {
	path := "tcp://" + s.Addr.Address
	if s.Addr.Network == "unix" {
		path = "unix://" + s.Addr.Address
	}
	ini := map[string]string{"session.save_handler": "redis", "session.save_path": path}
	if locking {
		ini["redis.session.locking_enabled"] = "1"
	}
	return ini
}
