package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// libraryTexts calls found with every string of the library: of all packages but
// programs, and those that read a command line.
func libraryTexts(t *testing.T, found func(place, text string)) {
	root := filepath.Join("..", "..")
	speakOfFlags := map[string]bool{"cmd": true, filepath.Join("internal", "ctq"): true, "testdata": true}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (speakOfFlags[rel] || strings.HasPrefix(d.Name(), ".") && rel != "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil || f.Name.Name == "main" {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, _ := strconv.Unquote(l.Value)
				found(files.Position(l.Pos()).String(), text)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLibrarySpeaksOfFields: who calls the library has no flags, and who types a
// command no fields.
func TestLibrarySpeaksOfFields(t *testing.T) {
	flags := map[string]bool{"--input-scales": true} // of convert_to_quant's command line
	for _, cmd := range newRoot().Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			flags["--"+f.Name] = true
			if field := fieldOf.FindString(f.Usage); field != "" {
				t.Errorf("the help of --%s names %s", f.Name, field)
			}
		})
	}
	// Of the commands of hubs and stores, which are run and not spoken of.
	theirs := []string{"--format", "--resource", "--output", "--revision", "--private", "--commit-message", "--delete", "--pattern", "--recursive", "--include", "--local-dir"}
	flag, n := regexp.MustCompile(`\B--[a-z][a-z0-9-]*`), 0
	libraryTexts(t, func(place, text string) {
		if found := flag.FindString(text); found != "" && !slices.Contains(theirs, found) {
			t.Errorf("%s: %q names %s: name the field of the options, in backquotes", place, text, found)
		}
		for _, field := range fieldOf.FindAllString(text, -1) {
			n++
			if got := flag.FindString(inFlags(field)); !flags[got] {
				t.Errorf("%s: %s is no field of any options that has a flag", place, field)
			}
		}
	})
	if n < 50 {
		t.Errorf("only %d fields are named: the texts were not found", n)
	}
}

// TestInFlags: names of the source's own stay as they are.
func TestInFlags(t *testing.T) {
	for text, want := range map[string]string{
		"out exists: give `Force` to replace it":                        "out exists: give --force to replace it",
		"`AcceptUnscaledFP8`, `MinNumel` or `ConvRotGroupSize`":         "--accept-unscaled-fp8, --min-numel or --convrot-group-size",
		"`TranscodeOptions.Layout` comfy moves it":                      "tensorpress transcode --layout comfy moves it",
		"`MigrateOptions.StripPrefixes` a. `StripPrefixes` b. takes it": "tensorpress migrate SOURCE DEST --strip-prefix a. --strip-prefix b. takes it",
		"tensor `Linear`.weight, [3 4] and `":                           "tensor `Linear`.weight, [3 4] and `",
	} {
		if got := inFlags(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
