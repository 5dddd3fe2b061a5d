package tensorpress_test

import (
	"flag"
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

var updateSurface = flag.Bool("update-surface", false, "write the list of public names anew")

// TestSurface: whoever imports these packages relies on every name, so that none
// comes or goes unseen. With -update-surface the list is written anew.
func TestSurface(t *testing.T) {
	const list = "testdata/golden/surface.txt"
	var names []string
	for _, dir := range []string{".", "dtype", "quant", "report", "safetensors", "storage"} {
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

// public lists the names of a package: what it declares, and the methods of its
// types.
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
		values(one.Consts)
		values(one.Vars)
		funcs(one.Funcs, "")
		funcs(one.Methods, one.Name+".")
	}
	slices.Sort(names)
	return names
}
