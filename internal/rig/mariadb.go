package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// MariaDBOptions configure a MariaDB.
type MariaDBOptions struct {
	Name string
	SQL  []string // statements for its first start, such as those that make users
}

// MariaDB starts a MariaDB with a data folder of its own, on a Unix socket.
func (r *Rig) MariaDB(o MariaDBOptions) (*Server, error) {
	path, err := Find("mariadbd")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: o.Name, removeSockets: true}
	if err := r.add("mariadb", s); err != nil {
		return nil, err
	}
	if s.Addr, err = r.choose(Addr{}, Unix, s.Name); err != nil {
		return nil, err
	}
	s.listen = []Addr{s.Addr}
	tables, err := mariadbTables()
	if err != nil {
		return nil, err
	}
	args := []string{
		"--no-defaults", "--datadir=" + s.file("data"), "--lc-messages-dir=" + filepath.Dir(tables),
		"--plugin-dir=" + s.dir, "--tmpdir=" + s.dir,
		"--innodb-log-file-size=8M", "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	err = s.bootstrap(path, args, tables, o.SQL)
	for tries := 1; err != nil && tries < 3; tries++ { // now and then it does not find a table that it has just made
		_ = os.RemoveAll(s.file("data"))
		err = s.bootstrap(path, args, tables, o.SQL)
	}
	if err != nil {
		return nil, fmt.Errorf("make the tables of %s: %w", s.Name, err)
	}
	args = append(args, "--skip-networking", "--socket="+s.Addr.Address, "--pid-file="+s.file("pid"))
	s.cmd = command{path: path, args: args}
	return s, s.Start()
}

// mariadbTables returns the path of the SQL that makes MariaDB's own tables, less its ending. Its messages are in the
// same folder.
func mariadbTables() (string, error) {
	for _, path := range []string{
		"/usr/share/mariadb/mariadb_system_tables", // MariaDB 11
		"/usr/share/mysql/mysql_system_tables",     // MariaDB 10
	} {
		if firstFile(path+".sql") != "" {
			return path, nil
		}
	}
	return "", fmt.Errorf("the SQL of MariaDB's own tables: %w", ErrMissing)
}

// bootstrap does what mariadb-install-db does, which needs more programs than the server. Each statement takes a line.
func (s *Server) bootstrap(path string, args []string, tables string, statements []string) error {
	if err := os.MkdirAll(s.file("data/mysql"), 0o700); err != nil {
		return err
	}
	sql := "use mysql;\n"
	for _, file := range []string{tables + ".sql", tables + "_data.sql"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		sql += string(text)
	}
	cmd := exec.Command(path, append(args, "--bootstrap")...)
	cmd.Stdin = strings.NewReader(sql + "flush privileges;\n" + strings.Join(statements, ";\n") + ";\n")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "\nERROR:") {
		return fmt.Errorf("%w%s", err, tail(string(out)))
	}
	return nil
}
