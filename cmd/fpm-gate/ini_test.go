package main

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// iniValues are texts after "=" and what PHP makes of them; nil: an error.
var iniValues = map[string]any{
	"":                    "",
	"a":                   "a",
	"a b":                 "a b",
	"a\tb":                "a\tb",
	"é":                   "é",
	"007":                 "007",
	"1M":                  "1M",
	"a,b":                 "a,b",
	"a[b]":                "a[b]",
	"a\\b":                "a\\b",
	"a\\nb":               "a\\nb",
	"a:b":                 "a:b",
	"a#b":                 "a#b",
	"a #b":                "a #b",
	"#b":                  "#b",
	"a?b*c":               "a?b*c",
	"$pool.sock":          "$pool.sock",
	";c":                  "",
	"a;b":                 "a",
	"a ;b":                "a",
	"a\t;b":               "a",
	"a ; b ; c":           "a",
	"5;0660;/var":         "5",
	`"5;0660;/var"`:       "5;0660;/var",
	`""`:                  "",
	`"a"`:                 "a",
	`"a b"`:               "a b",
	`" a "`:               " a ",
	`"a" ; c`:             "a",
	`"a";c`:               "a",
	`"a;b" ; "c"`:         "a;b",
	`"a=b"`:               "a=b",
	`"tcp://h:1?w=1&t=2"`: "tcp://h:1?w=1&t=2",
	`"a'b"`:               "a'b",
	`"a\"b"`:              `a"b`,
	`"a\"b" ; c`:          `a"b`,
	`"a\\b"`:              `a\b`,
	`"a\\"`:               `a\`,
	`"a\\" ; "c"`:         `a\`,
	`"a\nb"`:              `a\nb`,
	`"a\'b"`:              `a\'b`,
	`"a\$b"`:              `a$b`,
	`"$a"`:                "$a",
	`''`:                  "",
	`'a'`:                 "a",
	`'a' ; c`:             "a",
	`'a;b'`:               "a;b",
	`'a"b'`:               `a"b`,
	`'a\b'`:               `a\b`,
	`'a\\b'`:              `a\\b`,
	`"a" b`:               "ab",
	`"a"b`:                "ab",
	`"a" "b"`:             "ab",
	`"a""b"`:              "ab",
	`'a''b'`:              "ab",
	`a "b"`:               "ab",
	`a 'b'`:               "a b",
	`a"b"c`:               "abc",
	`"PHP_VERSION"`:       "PHP_VERSION",
	`"on"`:                "on",
	`"a`:                  nil,
	`a"b`:                 nil,
	`'a`:                  nil,
	`a=b`:                 nil,
	`tcp://h:1?w=1`:       nil,
}

func TestValuesInPHPINI(t *testing.T) {
	for text, want := range iniValues {
		got, ok := iniValue(text)
		if want == nil && ok || want != nil && (!ok || got != want) {
			t.Errorf("%s: got %q and %v, want %v", text, got, ok, want)
		}
		if got := isINILine("key = " + text); got != (want != nil) {
			t.Errorf("key = %s: got %v, want %v", text, got, want != nil)
		}
	}
}

// TestPHPReadsTheseValues checks the table against PHP.
func TestPHPReadsTheseValues(t *testing.T) {
	rigtest.Need(t, "php")
	php, err := rig.Find("php")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for text := range iniValues {
		texts = append(texts, text)
	}
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	const script = `foreach (json_decode($argv[1]) as $text) {
		$all[$text] = (@parse_ini_string("k = $text\n") ?: [])['k'] ?? null;
	}
	echo json_encode($all);`
	out, err := exec.Command(php, "-n", "-r", script, "--", string(in)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for text, want := range iniValues {
		if got[text] != want {
			t.Errorf("%s: PHP has %v, want %v", text, got[text], want)
		}
	}
}
