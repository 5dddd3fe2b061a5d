package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/internal/suggest"
)

// runError is an error from running a command. All other errors are about the command
// line: cobra or the command's own checks refused it before it ran.
type runError struct{ error }

func (e *runError) Unwrap() error { return e.error }

const interrupted = 130

// meanings explain the exit statuses in the help of each command.
var meanings = []struct {
	status int
	text   string
}{
	{0, "done, or verified"},
	{1, "reading, writing or the machine failed"},
	{2, "the command is wrong, or would overwrite something"},
	{3, "the source is damaged, unsupported or inconsistent"},
	{4, "verify found a problem or too great an error, or diff a difference"},
	{interrupted, "interrupted; nothing is left under DEST's name"},
}

// statusOf turns every error into its exit status.
func statusOf(err error) int {
	var some *someFailed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &some):
		return some.status()
	case isUsage(err):
		return 2
	case errors.Is(err, tensorpress.ErrSource):
		return 3
	case errors.Is(err, errVerify), errors.Is(err, errDiffer):
		return 4
	case errors.Is(err, context.Canceled):
		return interrupted
	}
	return 1
}

func isUsage(err error) bool {
	var ran *runError
	return !errors.As(err, &ran) || errors.Is(err, tensorpress.ErrUsage)
}

// message returns the line that reports an error to the user.
func message(cmd *cobra.Command, err error) string {
	var ran *runError
	switch {
	case statusOf(err) == interrupted:
		if afterError(err) != "" {
			return "interrupted"
		}
		return "interrupted, nothing was written"
	case !errors.As(err, &ran):
		return fmt.Sprintf("error: %s: see %s --help", oneLine(withoutSecrets(inFlags(flagText(cmd, err)))), cmd.CommandPath())
	case strings.HasPrefix(err.Error(), "internal error:"):
		return "error: " + internalText(err.Error())
	}
	return "error: " + oneLine(withoutSecrets(inFlags(err.Error())))
}

// internalText drops the stack trace unless TENSORPRESS_DEBUG asks for it.
func internalText(text string) string {
	if os.Getenv("TENSORPRESS_DEBUG") != "" {
		return text
	}
	line, _, _ := strings.Cut(text, "\n")
	return oneLine(line) + " (TENSORPRESS_DEBUG=1 shows where)"
}

// flagText describes an error about a flag in fewer words than pflag.
func flagText(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		name := unknown.GetSpecifiedName()
		return "unknown flag --" + name + hintOf(suggest.Words(name, flagNames(cmd.Flags())), "--")
	case errors.As(err, &missing):
		return fmt.Sprintf("--%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &invalid):
		return fmt.Sprintf("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), wanted(invalid))
	}
	return err.Error()
}

// hintOf suggests words, each after a prefix.
func hintOf(words []string, prefix string) string {
	for i := range words {
		words[i] = prefix + words[i]
	}
	return suggest.Ask(words)
}

func flagNames(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

func wanted(e *pflag.InvalidValueError) string {
	switch e.GetFlag().Value.Type() {
	case "int":
		return "want a whole number"
	case "float64":
		return "want a number"
	case "bool":
		return "want true or false"
	}
	return e.Unwrap().Error()
}

// oneLine makes text safe to print: names from a file may contain anything, even line
// ends and control sequences of terminals.
func oneLine(text string) string {
	if _, ok := plainWidth(text); ok {
		return text
	}
	text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "; ")
	if utf8.ValidString(text) && strings.IndexFunc(text, hidden) < 0 {
		return text
	}
	var b strings.Builder
	for i, size := 0, 0; i < len(text); i += size {
		var r rune
		switch r, size = utf8.DecodeRuneInString(text[i:]); {
		case r == utf8.RuneError && size == 1: // a byte of no character, which a terminal may obey
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case hidden(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plainWidth returns the width in characters of a text of printable ASCII and ×, as
// almost all are, and false for any other text.
func plainWidth(text string) (width int, ok bool) {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			if !strings.HasPrefix(text[i:], "×") {
				return 0, false
			}
			i++
		}
		width++
	}
	return width, true
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// statusHelp lists the exit statuses of a command.
func statusHelp(statuses string) string {
	var b strings.Builder
	wanted := strings.Fields(statuses)
	for _, m := range meanings {
		if number := strconv.Itoa(m.status); slices.Contains(wanted, number) {
			fmt.Fprintf(&b, "  %3s  %s\n", number, m.text)
		}
	}
	return b.String()
}
