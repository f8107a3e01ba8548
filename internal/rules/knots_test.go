package rules

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// maxUpward bounds the upward pairs of each package. A file points to another of its package if it uses a function,
// method, type, variable or constant that the other declares. In the best order of the files, the pairs that still point
// up are what has to be read together. Packages that are not listed may have none.
var maxUpward = map[string]int{
	"config":               3,
	"fcgi":                 2,
	"gate":                 5,
	"internal/bench":       3,
	"internal/demo":        10,
	"internal/memcached":   4,
	"internal/netpoll":     1,
	"internal/rig":         5,
	"internal/sharedlock":  4,
	"internal/supervisor":  2,
	"phpsession":           2,
	"sessionlock":          5,
	"sessionlock/locktest": 1,
	"sessionwatch":         2,
}

// maxMethodFiles is the number of files that the methods of a type may be in.
const maxMethodFiles = 3

// scattered are the types whose methods are in more files, and in how many.
var scattered = map[string]int{
	"internal/bench.stage": 5,
	"internal/demo.story":  8,
	"internal/rig.Rig":     12, // a method for each program
	"internal/rig.Server":  4,
}

func TestFilesPointDown(t *testing.T) {
	for dir, pkg := range typed(t) {
		order, up := pkg.order()
		if len(up) == maxUpward[dir] && !testing.Verbose() {
			continue
		}
		t.Logf("%s: %d of %d pairs point up, in the order %s", dir, len(up), len(pkg.uses), strings.Join(order, ", "))
		for _, p := range up {
			t.Logf("\t%s uses %s of %s", p.user, strings.Join(pkg.uses[p], ", "), p.used)
		}
		switch limit := maxUpward[dir]; {
		case len(up) > limit:
			t.Errorf("%s has %d upward pairs, want at most %d", dir, len(up), limit)
		case len(up) < limit:
			t.Errorf("%s has %d upward pairs; lower its limit of %d", dir, len(up), limit)
		}
	}
}

func TestMethodsStayTogether(t *testing.T) {
	for dir, pkg := range typed(t) {
		for name, files := range pkg.methods {
			limit, known := scattered[dir+"."+name]
			switch {
			case len(files) > max(limit, maxMethodFiles):
				t.Errorf("the methods of %s.%s are in %d files, want at most %d: %v",
					dir, name, len(files), max(limit, maxMethodFiles), slices.Sorted(maps.Keys(files)))
			case known && len(files) < limit:
				t.Errorf("the methods of %s.%s are in %d files; lower its limit of %d", dir, name, len(files), limit)
			}
		}
	}
}

// pair is a file that uses what another file declares.
type pair struct{ user, used string }

// typedPackage is what the files of a package use of each other.
type typedPackage struct {
	files   []string
	uses    map[pair][]string
	methods map[string]map[string]bool // the files, by type
}

// hasRaceDetector reports whether this program was built with it.
func hasRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// allTyped is what typed has found.
var allTyped map[string]*typedPackage

// typed checks the types of all packages, without their tests.
func typed(t *testing.T) map[string]*typedPackage {
	t.Helper()
	if allTyped != nil {
		return allTyped
	}
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export,DepOnly"}
	if hasRaceDetector() {
		args = append(args, "-race") // so packages are compiled already
	}
	list := exec.Command("go", append(args, "./...")...)
	list.Dir = "../.."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	type listed struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
		DepOnly                 bool
	}
	exports := make(map[string]string)
	var ours []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[l.ImportPath] = l.Export
		if !l.DepOnly {
			ours = append(ours, l)
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	all := make(map[string]*typedPackage)
	for _, l := range ours {
		var files []*ast.File
		for _, name := range l.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(l.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
		pkg, err := (&types.Config{Importer: imports}).Check(l.ImportPath, fset, files, info)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(l.ImportPath, module)] = newTypedPackage(fset, pkg, l.GoFiles, info)
	}
	allTyped = all
	return all
}

func newTypedPackage(fset *token.FileSet, pkg *types.Package, files []string, info *types.Info) *typedPackage {
	p := &typedPackage{files: files, uses: make(map[pair][]string), methods: make(map[string]map[string]bool)}
	fileOf := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	for ident, obj := range info.Uses {
		if obj.Pkg() != pkg || !isDeclared(pkg, obj) {
			continue
		}
		if by := (pair{fileOf(ident.Pos()), fileOf(obj.Pos())}); by.user != by.used && !slices.Contains(p.uses[by], obj.Name()) {
			p.uses[by] = append(p.uses[by], obj.Name())
		}
	}
	for _, name := range pkg.Scope().Names() {
		named, ok := pkg.Scope().Lookup(name).Type().(*types.Named)
		if !ok || named.Obj().Name() != name {
			continue
		}
		in := make(map[string]bool)
		for m := range named.Methods() {
			in[fileOf(m.Pos())] = true
		}
		p.methods[name] = in
	}
	return p
}

// isDeclared reports whether obj is declared by the package itself: a function, method, type, variable or constant, but
// no field and nothing local.
func isDeclared(pkg *types.Package, obj types.Object) bool {
	if f, ok := obj.(*types.Func); ok {
		recv := f.Signature().Recv()
		return recv == nil || !types.IsInterface(recv.Type())
	}
	return obj.Parent() == pkg.Scope()
}

// order returns the files in the order in which the fewest pairs point up, users first, and these pairs. For many files
// that use each other it is the best of many attempts.
func (p *typedPackage) order() (order []string, up []pair) {
	u := make(usage, len(p.files))
	for i, file := range p.files {
		u[i] = make([]int, len(p.files))
		for j, used := range p.files {
			if p.uses[pair{file, used}] != nil {
				u[i][j] = 1
			}
		}
	}
	for _, i := range u.order() {
		for _, above := range order {
			if p.uses[pair{p.files[i], above}] != nil {
				up = append(up, pair{p.files[i], above})
			}
		}
		order = append(order, p.files[i])
	}
	return order, up
}

// usage is 1 where one file, the row, uses another, the column.
type usage [][]int

func (u usage) order() []int {
	rng := rand.New(rand.NewPCG(1, 2))
	best := make([]int, len(u))
	for i := range best {
		best[i] = i
	}
	u.improve(best)
	for range 200 {
		trial := slices.Clone(best)
		rng.Shuffle(len(trial), func(i, j int) { trial[i], trial[j] = trial[j], trial[i] })
		u.improve(trial)
		if u.cost(trial) < u.cost(best) {
			best = trial
		}
	}
	return best
}

// improve moves single files to their best place until no move helps.
func (u usage) improve(order []int) {
	for moved := true; moved; {
		moved = false
		for from := range order {
			to, gain := from, 0
			for _, step := range []int{-1, 1} {
				change := 0 // in the pairs that point up, if the file is moved past those up to i
				for i := from + step; i >= 0 && i < len(order); i += step {
					change += step * (u[order[from]][order[i]] - u[order[i]][order[from]])
					if change < gain {
						to, gain = i, change
					}
				}
			}
			if to != from {
				file := order[from]
				copy(order[min(from, to+1):], order[min(from+1, to):max(from, to+1)])
				order[to], moved = file, true
			}
		}
	}
}

func (u usage) cost(order []int) (n int) {
	for i, file := range order {
		for _, above := range order[:i] {
			n += u[file][above]
		}
	}
	return n
}
