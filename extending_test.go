package tensorpress

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExtendingIsTrue: the page sends people to tests and files, which may be renamed.
func TestExtendingIsTrue(t *testing.T) {
	page, err := os.ReadFile("docs/extending.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(page), -1) {
		if !strings.Contains(tests.String(), "\nfunc "+name+"(") {
			t.Errorf("there is no %s", name)
		}
	}
	for _, found := range regexp.MustCompile("`([\\w*/.]+/[\\w*.]+)`").FindAllStringSubmatch(string(page), -1) {
		path := strings.ReplaceAll(found[1], "NAME", "*")
		if there, err := filepath.Glob(path); err != nil || there == nil {
			t.Errorf("there is no %s", path)
		}
	}
}
