package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress/internal/ctq"
)

var manFolder = flag.String("man", "", "write the manual pages to this `folder`")

// TestManual makes the manual pages of what the commands' help is made of, and reads
// them as man does. Releases have those that -man writes: in a test they cost the
// program nothing. cobra's own generator has neither the headings of flags nor exit
// statuses.
func TestManual(t *testing.T) {
	folder := *manFolder
	if folder == "" {
		folder = t.TempDir()
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	var paths []string
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, cmd := range append([]*cobra.Command{root}, root.Commands()...) {
		text := manual(cmd)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, roffWords("--"+f.Name)) {
				t.Errorf("%s: no --%s", cmd.CommandPath(), f.Name)
			}
		})
		path := filepath.Join(folder, manName(cmd)+".1")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed: what it says of the pages is not known")
	}
	if out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, paths...)...).CombinedOutput(); err != nil {
		t.Errorf("mandoc -T lint: %v\n%s", err, out)
	}
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manual is the manual page of a command, in the macros of man(7).
func manual(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 %s \"tensorpress %s\"\n", strings.ToUpper(manName(cmd)), manDate(), versionText())
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roffWords(manName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roffWords(useLine(cmd)))
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, cmd.Long)
	if cmd.Long == "" {
		b.WriteString(roff(cmd.Short) + ".\n")
	}
	if subs := cmd.Commands(); len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range subs {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roffWords(sub.Name()), roff(sub.Short))
		}
	}
	manFlags(&b, cmd)
	if statuses := cmd.Annotations["statuses"]; statuses != "" {
		b.WriteString(".SH EXIT STATUS\n")
		for line := range strings.Lines(statusHelp(statuses)) {
			status, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", status, roff(text))
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	manSeeAlso(&b, cmd)
	return b.String()
}

// manFlags writes flags by their headings, as help has them, and those of
// convert_to_quant, which are no flags of ours.
func manFlags(b *strings.Builder, cmd *cobra.Command) {
	b.WriteString(".SH OPTIONS\n")
	for _, g := range flagGroups(cmd.LocalFlags()) {
		fmt.Fprintf(b, ".SS %s\n", roff(g.heading))
		for line := range strings.Lines(g.flags.FlagUsagesWrapped(0)) {
			name, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roffWords(name), roff(strings.TrimSpace(text)))
		}
	}
	if cmd.Name() != "ctq" {
		return
	}
	parsed, err := ctq.Parse([]string{"--help"})
	if err != nil {
		panic(err)
	}
	for _, s := range parsed.Help() {
		fmt.Fprintf(b, ".SS %s\n", roff(s.Title))
		for _, o := range s.Options {
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roffWords(strings.Join(o.Names, ", ")), roff(strings.ReplaceAll(o.Ours, "`", "")))
		}
	}
}

func manSeeAlso(b *strings.Builder, cmd *cobra.Command) {
	b.WriteString(".SH SEE ALSO\n")
	if cmd.HasParent() {
		b.WriteString(".BR tensorpress (1),\n")
	}
	for _, sub := range cmd.Commands() {
		if !cmd.HasParent() {
			fmt.Fprintf(b, ".BR %s (1),\n", roffWords(manName(sub)))
		}
	}
	b.WriteString("https://github.com/tensorpress/tensorpress\n")
}

// manText writes paragraphs; indented lines stay as they are.
func manText(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for line := range strings.Lines(paragraph) {
			line = strings.TrimRight(line, "\n")
			if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
				fmt.Fprintf(b, ".nf\n    %s\n.fi\n", roff(strings.TrimSpace(line)))
			} else if line != "" {
				b.WriteString(roff(line) + "\n")
			}
		}
	}
}

// roff escapes text: a backslash, and what would be a request at the start of a line.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// roffWords are words that people type, whose dashes must stay what they are.
func roffWords(text string) string { return strings.ReplaceAll(roff(text), "-", `\-`) }

// manDate is the day of the release, which SOURCE_DATE_EPOCH has.
func manDate() string {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return "1970-01-01"
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}
