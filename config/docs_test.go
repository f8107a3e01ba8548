package config

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var (
	hclBlock  = regexp.MustCompile("(?ms)^```hcl\n(.*?)^```")
	firstWord = regexp.MustCompile(`(?m)^\s*(\w+)`)
)

// TestConfigsInDocumentsAreValid: what stands there is a whole config, a block of one, or a block of a gate. That of the
// README is for the package, whose socket is systemd's.
func TestConfigsInDocumentsAreValid(t *testing.T) {
	t.Setenv("APP_KEY", "base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range hclBlock.FindAllStringSubmatch(string(text), -1) {
			found++
			block := m[1]
			const head = "gate \"www\" {\n  listen = \"systemd:www\"\n  upstream { address = \"unix:/run/php/php-fpm.sock\" }\n"
			switch firstWord.FindStringSubmatch(block)[1] {
			case "gate":
			case "session", "lock", "route":
				block = head + block + "}\n"
			default:
				block = head + "}\n" + block
			}
			c, err := Parse([]byte(block), file)
			if err != nil {
				t.Errorf("%s: %v\n%s", file, err, block)
			} else if file == "../README.md" && c.Gates[0].Listen.Network != "systemd" {
				t.Errorf("README.md: got listen = %q, want a socket of systemd, as the package has it", c.Gates[0].Listen)
			}
		}
	}
	if found < 10 {
		t.Errorf("%d configs were found, want 10 at least", found)
	}
}
