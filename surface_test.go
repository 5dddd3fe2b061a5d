package tensorpress_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/fixture"
)

// publicPackages are the folders of those that others import.
var publicPackages = []string{".", "dtype", "files", "quant", "report", "safetensors", "storage"}

var updateSurface = flag.Bool("update-surface", false, "write the list of public names anew")

// TestSurface: whoever imports these packages relies on every name, so that none
// comes or goes unseen. With -update-surface the list is written anew.
func TestSurface(t *testing.T) {
	const list = "testdata/golden/surface.txt"
	var names []string
	for _, dir := range publicPackages {
		names = append(names, public(t, dir)...)
	}
	text := strings.Join(names, "\n") + "\n"
	if *updateSurface {
		if err := os.WriteFile(list, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	was := strings.Fields(string(fixture.FileBytes(t, list)))
	for _, name := range names {
		if !slices.Contains(was, name) {
			t.Errorf("%s is public and not in %s", name, list)
		}
	}
	for _, name := range was {
		if !slices.Contains(names, name) {
			t.Errorf("%s of %s is no longer public", name, list)
		}
	}
}

// public lists the names of a package: what it declares, and the methods and fields of
// its types.
func public(t *testing.T, dir string) (names []string) {
	t.Helper()
	fset := token.NewFileSet()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatal(err, fs.ErrNotExist)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, dir)
	if err != nil {
		t.Fatal(err)
	}
	add := func(list ...string) {
		for _, name := range list {
			if ast.IsExported(name[strings.LastIndexByte(name, '.')+1:]) {
				names = append(names, p.Name+"."+name)
			}
		}
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			add(v.Names...)
		}
	}
	funcs := func(list []*doc.Func, of string) {
		for _, f := range list {
			add(of + f.Name)
		}
	}
	values(p.Consts)
	values(p.Vars)
	funcs(p.Funcs, "")
	for _, one := range p.Types {
		add(one.Name)
		for _, spec := range one.Decl.Specs {
			for _, name := range members(spec.(*ast.TypeSpec).Type) {
				add(one.Name + "." + name)
			}
		}
		values(one.Consts)
		values(one.Vars)
		funcs(one.Funcs, "")
		funcs(one.Methods, one.Name+".")
	}
	slices.Sort(names)
	return names
}

// members are the fields of a struct, or the methods of an interface.
func members(of ast.Expr) (names []string) {
	var list *ast.FieldList
	switch of := of.(type) {
	case *ast.StructType:
		list = of.Fields
	case *ast.InterfaceType:
		list = of.Methods
	default:
		return nil
	}
	for _, field := range list.List {
		for _, name := range field.Names { // what is embedded has its own
			names = append(names, name.Name)
		}
	}
	return names
}

// TestSurfaceIsUsed: a public name that nobody uses, neither the command nor a test nor
// an Example, nor a call that takes or returns it, is a promise that nothing holds, and
// that keeps the code from changing.
func TestSurfaceIsUsed(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "gen" || d.Name() == "testdata"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".go"):
			return uses(path, used)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range publicPackages {
		for _, name := range public(t, dir) {
			parts := strings.Split(name, ".")
			if len(parts) == 3 { // a member goes by its name, whatever it is of
				parts = []string{"", parts[2]}
			}
			if !used[strings.Join(parts, ".")] && !byInterface[name] {
				t.Errorf("%s is public, and neither another package nor a test uses it", name)
			}
		}
	}
}

// byInterface are methods that are called as those of an interface of Go's.
var byInterface = map[string]bool{
	"report.Options.MarshalJSON": true, "report.Options.UnmarshalJSON": true,
}

// uses adds what a file uses of the public packages: "package.Name", and ".Name" for
// members. What a package uses of its own counts in its tests alone.
func uses(path string, used map[string]bool) error {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	packages := map[string]string{} // by what the file calls them
	for _, i := range f.Imports {
		of := ours(strings.Trim(i.Path.Value, `"`))
		if !strings.HasPrefix(strings.Trim(i.Path.Value, `"`), module) || of != "" && !slices.Contains(publicPackages, of) {
			continue
		}
		name := filepath.Base(module)
		if of != "" {
			name = of
		}
		called := name
		if i.Name != nil {
			called = i.Name.Name
		}
		packages[called] = name
	}
	dir, test := filepath.ToSlash(filepath.Dir(path)), strings.HasSuffix(path, "_test.go")
	own := slices.Contains(publicPackages, dir)
	if own && test && !strings.HasSuffix(f.Name.Name, "_test") {
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[f.Name.Name+"."+id.Name], used["."+id.Name] = true, true
			}
			return true
		})
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if own && n.Name.IsExported() {
				ast.Inspect(n.Type, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok {
						used[f.Name.Name+"."+id.Name] = true
					}
					return true
				})
			}
		case *ast.SelectorExpr:
			id, ok := n.X.(*ast.Ident)
			if name := packages[fmt.Sprint(id)]; ok && name != "" {
				used[name+"."+n.Sel.Name] = true
			} else if !own || test {
				used["."+n.Sel.Name] = true
			}
		case *ast.KeyValueExpr:
			if id, ok := n.Key.(*ast.Ident); ok && (!own || test) {
				used["."+id.Name] = true
			}
		}
		return true
	})
	return nil
}
