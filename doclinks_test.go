package tensorpress

import (
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// documented is a package whose comments are read.
type documented struct {
	path  string
	files []*ast.File
}

// documentedPackages are those of the module, by import path, with their files for
// every platform.
func documentedPackages(t *testing.T, fset *token.FileSet) map[string]*documented {
	const module = "github.com/tensorpress/tensorpress"
	all := map[string]*documented{}
	if err := filepath.WalkDir(".", func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		at := path.Join(module, filepath.ToSlash(filepath.Dir(name)))
		if all[at] == nil {
			all[at] = &documented{path: at}
		}
		all[at].files = append(all[at].files, f)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDocLinks: what a comment has in brackets as a name is one, in its own package or
// in one that the file imports.
func TestDocLinks(t *testing.T) {
	fset := token.NewFileSet()
	all := documentedPackages(t, fset)
	links := 0
	for at, p := range all {
		for _, f := range p.files {
			imports := map[string]string{}
			for _, i := range f.Imports {
				name := strings.Trim(i.Path.Value, `"`)
				imports[path.Base(name)] = name
			}
			links += checkDocLinks(t, fset, all, at, f, &comment.Parser{
				LookupPackage: func(name string) (string, bool) { at, ok := imports[name]; return at, ok },
				LookupSym:     func(recv, name string) bool { return true },
			})
		}
	}
	if links < 100 {
		t.Errorf("%d links, want more: are comments read?", links)
	}
}

func checkDocLinks(t *testing.T, fset *token.FileSet, all map[string]*documented, at string, f *ast.File, parse *comment.Parser) (links int) {
	for _, c := range f.Comments {
		for _, block := range parse.Parse(c.Text()).Content {
			paragraph, ok := block.(*comment.Paragraph)
			if !ok {
				continue
			}
			for _, text := range paragraph.Text {
				l, ok := text.(*comment.DocLink)
				if !ok {
					continue
				}
				links++
				p := all[at]
				if l.ImportPath != "" {
					p = all[l.ImportPath]
				}
				if p != nil && l.Name != "" && !p.has(l.Recv, l.Name) {
					t.Errorf("%s: no [%s] in %s", fset.Position(c.Pos()), strings.TrimPrefix(l.Recv+"."+l.Name, "."), p.path)
				}
			}
		}
	}
	return links
}

// has reports whether a package has that name, or that method or field of a type.
func (p *documented) has(recv, name string) (found bool) {
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				found = found || n.Name.Name == name && (recv == "") == (n.Recv == nil)
			case *ast.TypeSpec:
				found = found || recv == "" && n.Name.Name == name
			case *ast.ValueSpec:
				for _, id := range n.Names {
					found = found || recv == "" && id.Name == name
				}
			case *ast.Field:
				for _, id := range n.Names {
					found = found || recv != "" && id.Name == name
				}
			}
			return !found
		})
		if found {
			return true
		}
	}
	return false
}
