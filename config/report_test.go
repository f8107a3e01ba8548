package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected reports in testdata")

// TestReports compares the report of each testdata/reports/*.hcl with the .txt file of that name: the line of Error, or
// "no error", and then the output of Write.
func TestReports(t *testing.T) {
	files, err := filepath.Glob("testdata/reports/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no reports: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			got := report(t, file)
			golden := strings.TrimSuffix(file, ".hcl") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestErrorsPointAtWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"a value", gate(`idle_timeout = "0s"`), `"0s"`},
		{"an element of a list", gate(`session { cookies = ["A", "B.C"] }`), `"B.C"`},
		{"a list that is not written as one", gate(`session { cookies = true ? ["", "A"] : ["B", "C"] }`), `true ? ["", "A"] : ["B", "C"]`},
		{"an unknown key", gate(`relm = "shop"`), `relm`},
		{"an unknown block", gate(`locks {}`), `locks`},
		{"the block that lacks a key", gate("}\nmemcached {"), `memcached`},
		{"a second block of one name", gate("}\ngate \"www\" {\nlisten = \"127.0.0.1:1\"\nupstream { address = \"127.0.0.1:2\" }"), `gate "www"`},
		{"a call of env", gate(`realm = env("FPM_GATE_TEST_UNSET")`), `env(`},
		{"the value that another key contradicts", gate(`lock { store = "memcached" }`), `"memcached"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.src), "test.hcl")
			var wrong *Error
			if !errors.As(err, &wrong) {
				t.Fatalf("got %v, want an *Error", err)
			}
			var b strings.Builder
			if err := wrong.Write(&b, 0, true); err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(b.String(), "\x1b[1;4m")
			if got, _, _ := strings.Cut(rest, "\x1b[0m"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func report(t *testing.T, file string) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	c, err := Parse(src, filepath.Base(file))
	if err == nil {
		b.WriteString("no error\n\n")
		err = c.Warnings.Write(&b, 80, false)
	} else {
		var wrong *Error
		if !errors.As(err, &wrong) {
			t.Fatalf("got a %T, want an *Error", err)
		}
		fmt.Fprintf(&b, "%s\n\n", err)
		err = wrong.Write(&b, 80, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
