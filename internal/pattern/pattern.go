// Package pattern matches names against regular expressions in Python's
// syntax, look-around included, anywhere in the name.
package pattern

import (
	"fmt"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// Pattern is a compiled expression.
type Pattern struct {
	text string
	re   *regexp2.Regexp // nil for a literal
	// literal is the name that a pattern of no other is for, as there are thousands of in
	// a recipe with a rule for each layer.
	literal string
}

// timeout bounds one match, since expressions with look-around backtrack.
const timeout = time.Second

// Compile reads an expression as Python's re does.
func Compile(text string) (*Pattern, error) {
	if name, ok := literal(text); ok {
		return &Pattern{text: text, literal: name}, nil
	}
	re, err := regexp2.Compile(fromPython(text), regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	re.MatchTimeout = timeout
	return &Pattern{text: text, re: re}, nil
}

// literal returns the only name that an expression of the form ^name$ finds.
func literal(text string) (name string, ok bool) {
	inner, begins := strings.CutPrefix(text, "^")
	inner, ends := strings.CutSuffix(inner, "$")
	if !begins || !ends || inner == "" {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		c := inner[i]
		switch {
		case c == '\\' && i+1 < len(inner) && strings.IndexByte(`.^$*+?()[]{}|\-/`, inner[i+1]) >= 0:
			i++
			b.WriteByte(inner[i])
		case strings.IndexByte(`.^$*+?()[]{}|\`, c) >= 0:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// fromPython respells what Python alone writes: named groups and \Z.
func fromPython(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "(?P<"):
			b.WriteString("(?<")
			text = text[len("(?P<"):]
		case strings.HasPrefix(text, "(?P="):
			name, rest, _ := strings.Cut(text[len("(?P="):], ")")
			b.WriteString(`\k<` + name + `>`)
			text = rest
		case strings.HasPrefix(text, `\Z`):
			b.WriteString(`\z`)
			text = text[2:]
		case text[0] == '\\' && len(text) > 1:
			b.WriteString(text[:2])
			text = text[2:]
		default:
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.String()
}

// String returns the expression as it was given.
func (p *Pattern) String() string { return p.text }

// Match reports whether the expression is found anywhere in the name.
func (p *Pattern) Match(name string) (bool, error) {
	if p.re == nil { // $ also stands before a line's end
		return name == p.literal || len(name) == len(p.literal)+1 && name == p.literal+"\n", nil
	}
	found, err := p.re.MatchString(name)
	if err != nil {
		return false, fmt.Errorf("pattern %q on %s: %w", p.text, name, err)
	}
	return found, nil
}
