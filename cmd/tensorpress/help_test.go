package main

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// TestHelpBeginsWithTheUsual: who asks for help sees first what most runs need, and finds
// the many settings of formats below it, in groups that fit a screen.
func TestHelpBeginsWithTheUsual(t *testing.T) {
	for _, name := range []string{"quantize", "plan", "measure"} {
		cmd, _, err := newRoot().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		printFlags(&b, cmd.LocalFlags())
		first := strings.Join(strings.SplitN(b.String(), "\n", 61)[:60], "\n")
		for _, flag := range []string{"--layout ", "--dtype ", "--for ", "--bits ", "--search ", "--keep ", "--set ", "--preset "} {
			if !strings.Contains(first, flag) {
				t.Errorf("%s: %s is not among the first lines of its flags", name, flag)
			}
		}
		for _, g := range flagGroups(cmd.LocalFlags()) {
			n := 0
			g.flags.VisitAll(func(*pflag.Flag) { n++ })
			if n > 20 {
				t.Errorf("%s: %d flags under %q", name, n, g.heading)
			}
		}
	}
	if status := run([]string{"measure", "model.safetensors", "--outputs", "outputs.yaml"}, io.Discard, io.Discard); status != 2 {
		t.Errorf("measure takes --outputs, of which it makes nothing: status %d", status)
	}
}
