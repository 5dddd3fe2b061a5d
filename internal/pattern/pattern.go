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
	re   *regexp2.Regexp
}

// timeout bounds one match, since expressions with look-around backtrack.
const timeout = time.Second

// Compile reads an expression as Python's re does.
func Compile(text string) (*Pattern, error) {
	re, err := regexp2.Compile(fromPython(text), regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	re.MatchTimeout = timeout
	return &Pattern{text, re}, nil
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
	found, err := p.re.MatchString(name)
	if err != nil {
		return false, fmt.Errorf("pattern %q on %s: %w", p.text, name, err)
	}
	return found, nil
}
