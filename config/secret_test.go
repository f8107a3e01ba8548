package config

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever the mistake, no report shows a secret or more than one letter of it.
func TestNoReportShowsASecret(t *testing.T) {
	const secret = "Hunter2Hunter2"
	t.Setenv("FPM_GATE_TEST_SECRET", secret)
	t.Setenv("FPM_GATE_TEST_SPACED", secret+" "+secret+"=")
	memcached := func(text string) string {
		return "memcached {\nservers = [\"10.0.0.1:11211\"]\nlease = \"never\"\n" + text + "\n}\n" + gate(`lock { store = "memcached" }`)
	}
	mistakes := map[string]string{
		"none but a warning":            `KEY = "S"`,
		"a space":                       `KEY = "S S"`,
		"a NUL":                         `KEY = "S\u0000"`,
		"no quotes":                     `KEY = S`,
		"single quotes":                 `KEY = 'S'`,
		"a quote that is not closed":    "KEY = \"S\nlease = \"3s\"",
		"over two lines":                "KEY = \"S\nS==\"",
		"a number":                      `KEY = 4815162342`,
		"a bool":                        `KEY = true`,
		"a list":                        "KEY = [\n\"S\",\n\"S\"\n]",
		"an object":                     `KEY = { a = "S" }`,
		"null and more":                 `KEY = null "S"`,
		"a template":                    `KEY = "a${S}b"`,
		"a template of S":               `KEY = "a${S.S}b%{S}"`,
		"a bad escape":                  `KEY = "\S"`,
		"trailing text":                 `KEY = "x" S`,
		"two on a line":                 `lease = "3s" KEY = "S"`,
		"twice":                         "KEY = \"S\"\nKEY = \"S\"",
		"a heredoc":                     "KEY = <<EOT\nS==\nlease = S\nEOT",
		"a heredoc that does not end":   "KEY = <<EOT\nS=\nlease = S",
		"a block":                       "KEY {\nS\n}",
		"a block with a name":           "KEY \"S\" {\n}",
		"a block with a key":            `KEY { value = "S" }`,
		"mistyped":                      `KEYY = "S"`,
		"mistyped, as another word":     `passphrase = "S"`,
		"in capitals":                   `Key_of_KEY = "S"`,
		"behind a comment":              `lease = "x" # KEY: S`,
		"a colon":                       `KEY: "S"`,
		"two equal signs":               `KEY == "S"`,
		"no value":                      "KEY =\nS",
		"an arithmetic expression":      `KEY = "S" + 1`,
		"an unknown function":           `KEY = read("S")`,
		"file with the value":           `KEY = file("S")`,
		"file with the value, absolute": `KEY = file("/S")`,
		"file with a folder":            `KEY = file("/S/S")`,
		"file with too much":            `KEY = file("/etc/hostname", "S")`,
		"credential with the value":     `KEY = credential("S S")`,
		"env with the value":            `KEY = env("S")`,
		"env with too much":             `KEY = env("FPM_GATE_TEST_SECRET", "S", "S")`,
		"env of another type":           `KEY = env(["S"])`,
		"env with a space":              `KEY = env("FPM_GATE_TEST_SPACED")`,
		"env for a duration":            "KEY = \"x\"\ntimeout = env(\"FPM_GATE_TEST_SECRET\")",
		"env for a list":                `key_prefix = env("FPM_GATE_TEST_SPACED")`,
		"env in a template":             `key_prefix = "${env("FPM_GATE_TEST_SPACED")} "`,
		"env for quorum":                `quorum = env("FPM_GATE_TEST_SECRET")`,
		"env for a server":              `servers = [env("FPM_GATE_TEST_SECRET")]`,
		"in a URL":                      `servers = ["memcached://user:S@10.0.0.1:11211"]`,
		"in tls":                        `tls { KEY = "S" }`,
		"in tls, on its own line":       "tls {\nKEY = \"S\"\n}",
		"in a list that is not closed":  "servers = [\n\"KEY=S\",",
		"a username of the same line":   `username = "" password = "S"`,
		"no username":                   `KEY = "S"` + "\nusername = \"\"",
	}
	for _, key := range []string{"password", "secret"} {
		for name, text := range mistakes {
			fill := strings.NewReplacer("KEY", key, "FPM_GATE_TEST_SECRET", "FPM_GATE_TEST_SECRET", "FPM_GATE_TEST_SPACED", "FPM_GATE_TEST_SPACED", "S", secret)
			for where, src := range map[string]string{
				"at its place": memcached(fill.Replace(text)),
				"outside":      fill.Replace(text) + "\n" + memcached(""),
				"in a gate":    memcached("") + "gate \"b\" {\n" + fill.Replace(text) + "\n}\n",
				"in a session": gate("session {\n" + fill.Replace(text) + "\nhandler = \"any\"\nsave_path = \"tcp://h:6379?auth=" + secret + "\"\n}"),
			} {
				said := allSaid(t, src)
				if !strings.Contains(said, "rror") {
					t.Errorf("%s, %s, %s: got no error, and want at least one", key, name, where)
				}
				for _, never := range []string{secret, secret[:8], strings.ToLower(secret), "4815162342"} {
					if i := strings.Index(said, never); i >= 0 {
						t.Errorf("%s, %s, %s: a report shows the secret: …%s…", key, name, where, said[max(0, i-200):min(len(said), i+40)])
					}
				}
			}
		}
	}
}

// allSaid returns every text about a config.
func allSaid(t *testing.T, src string) string {
	t.Helper()
	c, err := Parse([]byte(src), "test.hcl")
	var report Report
	said := ""
	if wrong, ok := err.(*Error); ok {
		report, said = wrong.Report, err.Error()
	} else {
		report = c.Warnings
	}
	for _, color := range []bool{false, true} {
		var b strings.Builder
		if err := report.Write(&b, 100, color); err != nil {
			t.Fatal(err)
		}
		said += b.String()
	}
	return said + fmt.Sprint(report.Lines())
}

// A line that cannot hold a secret is shown, because that helps most.
func TestReportsShowHarmlessLines(t *testing.T) {
	for _, line := range []string{
		`max_wait = "soon"`, `listen = "nowhere"`, `gate "www" {`, `lock { max_wait = "soon" }`, `cookies = ["a", "b=c"]`,
		`upstream { address = "unix:/run/x.sock" }`, `key_prefix = "fpm"`, `route "x" {}`, `}`, ``, `key = "/etc/x.pem"`,
	} {
		if m := mask(newFile().block(), []byte(line+"\n")); string(m.text) != line+"\n" || m.hidden[0] {
			t.Errorf("%s: got %q, want it as it is", line, m.text)
		}
	}
	src := "cookies = [\n  \"A\",\n  \"B\"\n]\n"
	if m := mask(newFile().block(), []byte(src)); string(m.text) != src {
		t.Errorf("got %q, want it as it is", m.text)
	}
}
