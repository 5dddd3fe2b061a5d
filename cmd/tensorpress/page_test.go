package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// pagePath is where a page lies that scripts name as docs does.
func pagePath(name string) string { return filepath.Join("..", "..", "docs", filepath.FromSlash(name)) }

// page NAME [LINES...] runs the commands that a page of docs has, in their order: those of
// its sh blocks, and those that are a cell of a table. LINES are those of other programs
// that it has and that are not run; all of them, and no others.
func runPage(ts *testscript.TestScript, neg bool, args []string) {
	text, err := os.ReadFile(pagePath(args[0]))
	check(ts, err)
	others, ran := args[1:], 0
	for _, line := range pageCommands(string(text)) {
		words, err := shellWords(line)
		switch {
		case slices.Contains(others, line):
			others = slices.DeleteFunc(slices.Clone(others), func(o string) bool { return o == line })
		case err != nil:
			ts.Fatalf("%s: %s: %v", args[0], line, err)
		case words[0] == "mkdir":
			for _, name := range words[1:] {
				check(ts, os.Mkdir(ts.MkAbs(name), 0o777))
			}
		case words[0] != "tensorpress":
			ts.Fatalf("%s: %s: the test does not know what to do with %s", args[0], line, words[0])
		default:
			if err := ts.Exec(words[0], words[1:]...); err != nil {
				ts.Fatalf("%s: %s: %v", args[0], line, err)
			}
			ran++
		}
	}
	if ran == 0 || len(others) > 0 {
		ts.Fatalf("%s: %d commands were run, and these are not there: %q", args[0], ran, others)
	}
}

// pageCommands returns the lines of a page's sh blocks, continued ones as one, and the
// commands that fill a cell of a table.
func pageCommands(text string) (lines []string) {
	cell := regexp.MustCompile("\\| `(tensorpress [^`]*)` (?:\\||$)")
	inShell, fenced, begun := false, false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if kind, ok := strings.CutPrefix(line, "```"); ok {
			fenced = !fenced
			inShell = fenced && kind == "sh"
			continue
		}
		switch before, continued := strings.CutSuffix(line, `\`); {
		case inShell && continued:
			begun += before
		case inShell && line != "" && !strings.HasPrefix(line, "#"):
			lines, begun = append(lines, begun+line), ""
		case !fenced:
			for _, c := range cell.FindAllStringSubmatch(line, -1) {
				lines = append(lines, c[1])
			}
		}
	}
	return lines
}

// shellWords splits a line as a shell does that knows words and single quotes. What else
// has a meaning to a shell is an error.
func shellWords(line string) (words []string, err error) {
	word, begun, quoted := "", false, false
	for _, r := range line + " " {
		switch {
		case r == '\'':
			begun, quoted = true, !quoted
		case quoted:
			word += string(r)
		case r == ' ' && begun:
			words, word, begun = append(words, word), "", false
		case strings.ContainsRune("\"\\$`|&;<>*?~#(){}[]!\t\n", r):
			return nil, fmt.Errorf("%q means something to a shell that this test does not do", r)
		case r != ' ':
			word, begun = word+string(r), true
		}
	}
	if quoted || len(words) == 0 {
		return nil, errors.New("want words, and quotes that end")
	}
	return words, nil
}

// shown NAME TEXT makes sure that the command before printed a text that a page of docs
// says one sees.
func shown(ts *testscript.TestScript, neg bool, args []string) {
	page, err := os.ReadFile(pagePath(args[0]))
	check(ts, err)
	if !strings.Contains(string(page), "| `"+args[1]+"` |") {
		ts.Fatalf("%s says nothing of %q", args[0], args[1])
	}
	if !strings.Contains(ts.ReadFile("stderr")+ts.ReadFile("stdout"), args[1]) {
		ts.Fatalf("%q was not printed", args[1])
	}
}

// TestPages: whoever follows a page of an application, or the README, types what has been
// run, and meets the lines that it names. Those of Python have their own script.
func TestPages(t *testing.T) {
	script, err := os.ReadFile("testdata/script/pages.txtar")
	if err != nil {
		t.Fatal(err)
	}
	python, err := os.ReadFile("../../conformance/pages/run.py")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(pagePath("apps/*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	if !strings.Contains(string(script), "\npage ../README.md") {
		t.Error("the commands of README.md are not run")
	}
	for _, path := range pages {
		name := "apps/" + filepath.Base(path)
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(script), "\npage "+name) {
			t.Errorf("the commands of %s are not run", name)
		}
		if strings.Contains(string(page), "```python") && !strings.Contains(string(python), filepath.Base(path)) {
			t.Errorf("the Python of %s is not run", name)
		}
		_, wrong, ok := strings.Cut(string(page), "## What can go wrong")
		rows := regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllStringSubmatch(wrong, -1)
		if !ok || len(rows) == 0 {
			t.Errorf("%s does not say what can go wrong", name)
		}
		for _, row := range rows {
			if !strings.Contains(string(script), "shown "+name+" '"+strings.ReplaceAll(row[1], "'", "''")+"'") && !strings.Contains(string(python), row[1]) {
				t.Errorf("%s: %q has not been seen", name, row[1])
			}
		}
	}
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string][]string{
		`tensorpress plan a --set '(x|y)\.z=int8, convrot' -q`: {"tensorpress", "plan", "a", "--set", `(x|y)\.z=int8, convrot`, "-q"},
		`a b'c d' 'e'f`: {"a", "bc d", "ef"},
	} {
		if got, err := shellWords(line); err != nil || (!slices.Equal(got, want)) {
			t.Errorf("%s: %q, %v", line, got, err)
		}
	}
	for _, line := range []string{`a "b"`, "a | b", "a $b", "it's", "a > b", ""} {
		if got, err := shellWords(line); err == nil {
			t.Errorf("%s: %q", line, got)
		}
	}
}
