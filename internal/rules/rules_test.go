package rules

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/fpm-gate/fpm-gate/"

// mayImport says which packages of ours a package may import, tests left aside. What is not listed may import nothing of ours.
var mayImport = map[string][]string{
	"admin":                {"admin/page", "gate", "internal/sharedlock", "phpworker", "sessionlock"},
	"cmd/fpm-gate":         {"admin", "config", "fcgi", "gate", "internal/demo", "internal/landlock", "internal/supervisor", "laravel", "memcachelock", "netaddr", "phpfpm", "phpsession", "phpworker", "sessionlock", "sessionwatch"},
	"fcgi":                 {"internal/netpoll", "netaddr"},
	"gate":                 {"fcgi", "netaddr", "phpfpm", "phpsession", "phpworker", "sessionlock", "sessionwatch"},
	"internal/bench":       {"internal/rig", "fcgi"},
	"internal/demo":        {"internal/rig"},
	"internal/netpolltest": {"internal/netpoll"},
	"internal/rig/browser": {"internal/rig", "internal/rig/rigtest"},
	"internal/rig/rigtest": {"internal/rig"},
	"handover":             {"sessionlock"},
	"internal/kv":          {},
	"internal/memcached":   {"internal/kv", "netaddr"},
	"memcachelock":         {"internal/kv", "internal/memcached", "internal/sharedlock", "netaddr"},
	"internal/sharedlock":  {"internal/kv", "sessionlock"},
	"internal/supervisor":  {"config", "gate", "handover", "internal/landlock", "netaddr", "sessionlock", "sessionwatch"},
	"phpfpm":               {"fcgi", "netaddr"},
	"sessionlock/locktest": {"sessionlock"},
	"config":               {"netaddr"},
	"internal/rig":         {"netaddr"},
	"sessionwatch":         {"netaddr"},
}

func TestImportDirections(t *testing.T) {
	for dir, pkg := range packages(t) {
		for _, path := range pkg.Imports {
			if name, ours := strings.CutPrefix(path, module); ours && !slices.Contains(mayImport[dir], name) {
				t.Errorf("%s imports %s, which docs/DESIGN.md does not allow", dir, name)
			}
		}
	}
}

// maxColumns is the longest line of code, in characters.
const maxColumns = 120

func TestNoLineIsTooLong(t *testing.T) {
	for file, lines := range sources(t) {
		for i, line := range lines {
			if n := utf8.RuneCountInString(line); n > maxColumns {
				t.Errorf("%s:%d has %d columns, want at most %d", file, i+1, n, maxColumns)
			}
		}
	}
}

// slowCall matches a system call of which Go's scheduler is informed. On a quiet machine it wakes Go's monitor thread,
// which took a third of the gate's CPU time there.
var slowCall = regexp.MustCompile(`\b(?:unix|syscall)\.[A-Z]\w*\(`)

// A request's system calls are in internal/netpoll, which makes them by RawSyscall.
func TestRequestsMakeNoSlowCalls(t *testing.T) {
	for file, lines := range sources(t) {
		if filepath.Dir(file) != "fcgi" {
			continue
		}
		for i, line := range lines {
			if call := slowCall.FindString(line); call != "" {
				t.Errorf("%s:%d calls %s…), want a function of internal/netpoll", file, i+1, call)
			}
		}
	}
}

// unplain are phrases that CONTRIBUTING.md rules out, each with what to write instead. A word that is also a name in code
// must stand alone there.
var unplain = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\b(?:say|says|tell|tells) whether\b`), "reports whether"},
	{regexp.MustCompile(`\b(?:is that of|are those of)\b`), "is returned when, or the noun"},
	{regexp.MustCompile(`\bthe begin of\b`), "the start of, or a prefix of"},
	{regexp.MustCompile(`\bany more\b`), "no longer"},
	{regexp.MustCompile(`(?i)\b(?:nobody|somebody|whom)\b`), "no request, another gate, a caller that"},
	{regexp.MustCompile(`\b(?:he|him|his)\b`), "it"},
	{regexp.MustCompile(`\b(?:seldom|mostly)\b`), "rarely, usually"},
	{regexp.MustCompile(`\b(?:is|was|been) told\b`), "notified, reported"},
	{regexp.MustCompile(`(?i)\bbeside\b`), "next to, concurrently with"},
	{regexp.MustCompile(`\bbehind each other\b`), "one after the other"},
}

// quotes are files that have some of these phrases for a reason.
var quotes = []string{
	"internal/rules/rules_test.go", // the list above
	"tests/apps_lost_test.go",      // the name of a system user, in a setting of Dovecot
}

func TestTextsArePlain(t *testing.T) {
	for file, lines := range sources(t) {
		for i, line := range lines {
			checkPlain(t, file, i+1, line)
		}
	}
}

// Tests are read as often as what they test: their names of cases, failure messages and comments are plain, too.
func TestTestsArePlain(t *testing.T) {
	for file, lines := range testSources(t) {
		if slices.Contains(quotes, file) {
			continue
		}
		for i, line := range lines {
			checkPlain(t, file, i+1, line)
			if separated.MatchString(line) {
				t.Errorf("%s:%d: write %q in a failure message", file, i+1, "got …, want …")
			}
		}
	}
}

// separated matches a failure message whose parts are separated by a semicolon, but for one that has several results.
var separated = regexp.MustCompile(`\b(?:Errorf|Fatalf|Error|Fatal)\("[^"]*\bgot [^,"]*; want `)

func TestDocsArePlain(t *testing.T) {
	for _, pattern := range []string{"*.md", "docs/*.md", "man/*.[58]", "config/*.hcl", "packaging/*.hcl", "docs/alerts/*.yml"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				checkPlain(t, file, i+1, line)
			}
		}
	}
}

// checkPlain fails the test for each phrase in a line that is not plain.
func checkPlain(t *testing.T, file string, n int, line string) {
	t.Helper()
	for _, u := range unplain {
		if found := u.phrase.FindString(line); found != "" {
			t.Errorf("%s:%d: write %s for %q (see CONTRIBUTING.md)", file, n, u.instead, found)
		}
	}
}

// sources returns the lines of all Go files of the repository, without the tests.
func sources(t *testing.T) map[string][]string {
	t.Helper()
	return linesOf(t, func(pkg *build.Package) []string { return slices.Concat(pkg.GoFiles, pkg.IgnoredGoFiles) },
		func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
}

// testSources returns the lines of all tests of the repository.
func testSources(t *testing.T) map[string][]string {
	t.Helper()
	return linesOf(t, func(pkg *build.Package) []string {
		return slices.Concat(pkg.TestGoFiles, pkg.XTestGoFiles, pkg.IgnoredGoFiles)
	}, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

func linesOf(t *testing.T, files func(*build.Package) []string, counts func(name string) bool) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for dir, pkg := range packages(t) {
		for _, name := range files(pkg) {
			if !counts(name) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(pkg.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Join(dir, name)] = strings.Split(string(text), "\n")
		}
	}
	if len(all) < 100 {
		t.Fatalf("found %d files, which cannot be all", len(all))
	}
	return all
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for dir, pkg := range packages(t) {
		if len(pkg.GoFiles) == 0 {
			continue
		}
		var lines int
		for _, name := range pkg.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			lines += strings.Count(f.Doc.Text(), "\n")
		}
		if lines < 3 {
			t.Errorf("the doc of package %s has %d lines, want 3 or more", dir, lines)
		}
	}
}

// internals are packages that other programs need not import, besides those below internal.
var internals = []string{"admin/page", "man", "sessionlock/locktest"}

func TestEveryPackageToImportHasAnExample(t *testing.T) {
	for dir, pkg := range packages(t) {
		if pkg.Name == "main" || len(pkg.GoFiles) == 0 || strings.HasPrefix(dir, "internal/") || slices.Contains(internals, dir) {
			continue
		}
		examples := 0
		for _, name := range pkg.XTestGoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Example") {
					examples++
				}
			}
		}
		if examples == 0 {
			t.Errorf("package %s has no example; write one in %s/example_test.go", dir, dir)
		}
	}
}

// packages returns the packages of the repository by their folders.
func packages(t *testing.T) map[string]*build.Package {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*build.Package)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "build") {
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(path, 0)
		if err != nil {
			return nil // no Go files
		}
		dir, _ := filepath.Rel(root, path)
		all[dir] = pkg
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil || len(all) < 8 {
		t.Fatalf("found %d packages below %s, which cannot be all", len(all), root)
	}
	return all
}
