package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckShowsWhatAnApplicationComesTo with what the file sets itself, and shows no key.
func TestCheckShowsWhatAnApplicationComesTo(t *testing.T) {
	const key = "0123456789abcdeF"
	for session, want := range map[string]string{
		`application = "drupal"`: `application = "drupal" comes to cookies = ["SSESS*", "SESS*"], locks = false, release_on = "close"`,
		`application = "moodle"
		 cookies = ["MoodleSessionx"]`: `comes to cookies = ["MoodleSessionx"], locks = true, release_on = "close"`,
		`application = "laravel"
		 keys = ["` + key + `", "base64:AAECAwQFBgcICQoLDA0ODw=="]`: `comes to cookies = ["*_session", "*-session"], ` +
			`format = "laravel" with 2 keys, locks = false, release_on = "headers"`,
		`application = "mediawiki"`: `id_pattern = "^[A-Za-z0-9_-]{32,}$"`,
	} {
		file := filepath.Join(t.TempDir(), "fpm-gate.hcl")
		text := "gate \"www\" {\n listen = \"unix:/run/x.sock\"\n upstream { address = \"127.0.0.1:9000\" }\n session {\n" + session + "\n}\n}\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := check(&out, file, true, false); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, key) {
			t.Errorf("%s: check prints %q, want %q in it and no key", session, got, want)
		}
	}
}

func TestCheckShowsAddressesWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fpm-gate.hcl")
	text := "gate \"www\" {\n listen = \"[::1]:9001\"\n upstream { addresses = [\"[::1]:9000\", \"127.0.0.1:9000\"] }\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := check(&out, file, true, false); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "gate \"www\": [::1]:9001 to [::1]:9000 127.0.0.1:9000\n"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}
