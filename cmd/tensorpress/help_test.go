package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestHelpFitsATerminal: lines that wrap are hard to read, and a table of flags
// falls apart.
func TestHelpFitsATerminal(t *testing.T) {
	root := newRoot()
	root.InitDefaultCompletionCmd()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var b strings.Builder
		printHelp(&b, cmd)
		if cmd.Name() == "ctq" {
			b.Reset()
			if status := run([]string{"ctq", "--help"}, &b, &b); status != 0 {
				t.Errorf("ctq --help exits with %d", status)
			}
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > helpWidth {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

func TestFold(t *testing.T) {
	long := strings.Repeat("word ", 20)
	for text, want := range map[string]string{
		"a  b\n\nc":     "a  b\n\nc\n",
		"  " + long:     "  " + strings.TrimSpace(strings.Repeat("word ", 15)) + "\n  word word word word word\n",
		"\t" + long:     "  " + strings.TrimSpace(strings.Repeat("word ", 15)) + " \\\n    word word word word word\n",
		"    --set 'a'": "    --set 'a'\n",
	} {
		if got := fold(text); got != want {
			t.Errorf("fold(%q) = %q, want %q", text, got, want)
		}
	}
}
