package main

import (
	"strings"
	"unicode/utf8"
)

// helpWidth is the width of a terminal into which help must fit.
const helpWidth = 80

// fold breaks lines that are too wide at spaces and keeps their indentation. A line
// that begins with a tab is a command, so a backslash ends its parts.
func fold(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		command := strings.HasPrefix(line, "\t")
		line = strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "  ")
		if utf8.RuneCountInString(line) <= helpWidth {
			b.WriteString(line + "\n")
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		end := ""
		if command {
			end = ` \`
		}
		foldLine(&b, strings.Fields(line), indent, end)
	}
	return b.String()
}

// foldLine writes words in lines of helpWidth and ends all but the last with end.
func foldLine(b *strings.Builder, words []string, indent, end string) {
	width := 0
	for _, word := range words {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
			b.WriteString(indent)
			width = len(indent)
		case width+1+n+len(end) > helpWidth:
			b.WriteString(end + "\n" + indent)
			width = len(indent)
			if end != "" {
				b.WriteString("  ")
				width += 2
			}
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	b.WriteByte('\n')
}
