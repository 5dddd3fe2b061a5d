package tensorpress_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tensorpress/tensorpress"

// mapPage holds the map: a table of packages, what each owns, and what it imports
// of ours.
const mapPage = "docs/architecture.md"

// TestImportsFollowTheMap: an import against the flow makes the house hard to
// read, and a package that is not on the map, or an arrow that is on the map alone,
// misleads who reads it.
func TestImportsFollowTheMap(t *testing.T) {
	want, got := drawn(t), imported(t)
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("package %s is not on the map of %s", shown(name), mapPage)
			continue
		}
		for _, path := range got[name] {
			if !slices.Contains(want[name], path) {
				t.Errorf("%s imports %s, which the map does not show", shown(name), shown(path))
			}
		}
		for _, path := range want[name] {
			if !slices.Contains(got[name], path) {
				t.Errorf("the map shows that %s imports %s, which it does not", shown(name), shown(path))
			}
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("the map shows a package %s, which there is not", shown(name))
		}
	}
}

// TestMapReadsDownwards: a row imports what stands below it alone, so that the
// page can be read once from the top.
func TestMapReadsDownwards(t *testing.T) {
	order, imports := rows(t)
	for i, name := range order {
		for _, path := range imports[name] {
			if slices.Index(order, path) <= i {
				t.Errorf("%s imports %s, which does not stand below it", shown(name), shown(path))
			}
		}
	}
}

var mapRow = regexp.MustCompile("(?m)^\\| (root|`[a-z0-9/]+`) \\| .* \\| ([a-z0-9/, ]*) ?\\|$")

// rows are the packages in the order of the page, and what they import; the root is
// "".
func rows(t *testing.T) (order []string, imports map[string][]string) {
	t.Helper()
	page, err := os.ReadFile(mapPage)
	if err != nil {
		t.Fatal(err)
	}
	imports = map[string][]string{}
	for _, m := range mapRow.FindAllStringSubmatch(string(page), -1) {
		name := strings.Trim(m[1], "`")
		if name == "root" {
			name = ""
		}
		order = append(order, name)
		imports[name] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, list := range imports {
		for i, short := range list {
			list[i] = long(t, short, order)
		}
	}
	return order, imports
}

// long is the path of a package that the map names without "internal/".
func long(t *testing.T, short string, all []string) string {
	t.Helper()
	switch {
	case short == "root":
		return ""
	case slices.Contains(all, short):
		return short
	case slices.Contains(all, "internal/"+short):
		return "internal/" + short
	}
	t.Errorf("the map names a package %s and has no row for it", short)
	return short
}

func drawn(t *testing.T) map[string][]string {
	t.Helper()
	_, imports := rows(t)
	return imports
}

// imported is what the packages import of ours.
func imported(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		name := ours(p.ImportPath)
		all[name] = nil
		for _, path := range p.Imports {
			if strings.HasPrefix(path, module) {
				all[name] = append(all[name], ours(path))
			}
		}
	}
}

func ours(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func shown(name string) string {
	if name == "" {
		return "the root"
	}
	return name
}
