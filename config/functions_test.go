package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// secretOf loads a config whose lock secret is an expression.
func secretOf(expression string) (string, error) {
	c, err := Parse([]byte(`memcached {
  servers = ["10.0.0.1:11211"]
  secret  = `+expression+`
}
gate "www" {
  listen = "unix:/run/www.sock"
  upstream { address = "unix:/run/php.sock" }
  lock { store = "memcached" }
}`), "fpm-gate.hcl")
	if err != nil {
		return "", err
	}
	return c.Memcached.Secret, nil
}

func TestSecretsComeFromFilesAndCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for content, want := range map[string]string{
		"hunter2": "hunter2", "hunter2\n": "hunter2", "hunter2\r\n": "hunter2", "hunter2\n\n": "hunter2\n",
		" ${x} \"\\": " ${x} \"\\", "": "",
	} {
		path := filepath.Join(dir, "locks.secret")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, expression := range []string{`file("` + path + `")`, `credential("locks.secret")`} {
			if got, err := secretOf(expression); got != want || err != nil {
				t.Errorf("%s with %q: got %q and %v, want %q", expression, content, got, err, want)
			}
		}
	}
}

func TestSecretsThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil { // which blocks whoever opens it
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"long": bytes.Repeat([]byte("a"), maxSecret+1), "binary": {0xff, 0xfe},
	} {
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for expression, want := range map[string]string{
		`file("` + path("missing") + `")`: path("missing") + ": no such file or directory",
		`file("` + dir + `")`:             dir + ": not a regular file",
		`file("` + path("fifo") + `")`:    "not a regular file",
		`file("` + path("long") + `")`:    "longer than 65536 bytes",
		`file("` + path("binary") + `")`:  "not text in UTF-8",
		`file("secret.txt")`:              "the path must be absolute",
		`file("/no/such/folder/x")`:       "…: no such file or directory",
		`credential("missing")`:           "systemd has passed no credential \"missing\"; add LoadCredential=missing:/path",
		`credential("../passwd")`:         "the name of a credential has letters",
		`credential("long")`:              `credential "long": it is longer than 65536 bytes`,
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", dir)
		_, err := secretOf(expression)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", expression, err, want)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := secretOf(`credential("locks")`); err == nil || !strings.Contains(err.Error(), "no credentials to this process") {
		t.Errorf("got %v, want that there are no credentials", err)
	}
}
