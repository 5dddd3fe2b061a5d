package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestPythonHasCommands: every command is a function of the Python package, and every
// flag one of its keyword arguments. python/tests/make_flags.py writes them.
func TestPythonHasCommands(t *testing.T) {
	folder := filepath.Join("..", "..", "python", "src", "tensorpress")
	functions, err := os.ReadFile(filepath.Join(folder, "__init__.py"))
	if err != nil {
		t.Fatal(err)
	}
	typed, err := os.ReadFile(filepath.Join(folder, "_flags.py"))
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"json", "progress", "help", "version", "all"} // those that functions give themselves, or of text alone
	for _, cmd := range newRoot().Commands() {
		if !strings.Contains(string(functions), "\ndef "+cmd.Name()+"(") {
			t.Errorf("%s is no function", cmd.Name())
		}
		var want []string
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !slices.Contains(own, f.Name) {
				want = append(want, f.Name)
			}
		})
		got := pythonFlags(string(typed), cmd.Name())
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has keywords\n%s, want\n%s", cmd.Name(), got, want)
		}
	}
}

// pythonFlags are the flags of a command that Python has, with those of the class that
// its own is derived from.
func pythonFlags(typed, command string) []string {
	class := regexp.MustCompile(`(?m)^class (?i:` + command + `)Flags\((?:(\w+)Flags|TypedDict), total=False\):\n(?:(?:    .*)?\n)*`)
	found := class.FindStringSubmatch(typed)
	if found == nil {
		return nil
	}
	var flags []string
	if found[1] != "" {
		flags = pythonFlags(typed, found[1])
	}
	for _, key := range regexp.MustCompile(`(?m)^    (\w+): `).FindAllStringSubmatch(found[0], -1) {
		flags = append(flags, strings.ReplaceAll(strings.TrimSuffix(key[1], "_"), "_", "-"))
	}
	return flags
}
