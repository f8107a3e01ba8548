package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```")
	heading   = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	linkText  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// TestLinksBetweenDocumentsLeadSomewhere: to a file that is there, and to a heading of it.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	documents, links := documents(t), 0
	for name, text := range documents {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(m[1], "#")
			file := name
			if path != "" {
				file = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(documents[file]), anchor) {
				t.Errorf("%s links to %s, and there is no such heading", name, m[1])
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links were found, want 100 at least", links)
	}
}

// TestTheReadmeLeadsToEachDocument, or a reader would not find it.
func TestTheReadmeLeadsToEachDocument(t *testing.T) {
	documents := documents(t)
	for name := range documents {
		if filepath.Dir(name) == "docs" && !strings.Contains(documents["README.md"], "]("+name) {
			t.Errorf("README.md does not link to %s", name)
		}
	}
}

// documents returns the texts of the documents by their names.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[strings.TrimPrefix(filepath.ToSlash(file), "../../")] = codeBlock.ReplaceAllString(string(text), "")
		}
	}
	return texts
}

// anchors returns the anchors of a document's headings, as GitHub makes them.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		words := strings.ToLower(linkText.ReplaceAllString(m[1], "$1"))
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, words))
	}
	return all
}
