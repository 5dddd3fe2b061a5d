package pyjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Parse reads a text of one JSON value. It accepts NaN and infinities, which Python
// writes into configs, and skips a byte order mark, which some editors write. It
// refuses duplicate keys.
func Parse(text []byte) (any, error) {
	p := &parser{rest: strings.TrimPrefix(string(text), "\ufeff")}
	v, err := p.value(0)
	if err == nil && p.peek() != 0 {
		err = errors.New("text after the JSON value")
	}
	if err != nil {
		return nil, fmt.Errorf("byte %d: %w", len(text)-len(p.rest), err)
	}
	return v, nil
}

// ParseObject is Parse for text that must be an object.
func ParseObject(text []byte) (Object, error) {
	v, err := Parse(text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(Object)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return o, nil
}

const maxDepth = 64

type parser struct{ rest string }

// peek skips white space and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// take skips the next byte if it is c, and reports whether it was.
func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("JSON nested too deeply")
	}
	switch p.peek() {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		return p.text()
	}
	return p.scalar()
}

var words = map[string]any{
	"null": nil, "true": true, "false": false,
	"NaN": json.Number("NaN"), "Infinity": json.Number("Infinity"), "-Infinity": json.Number("-Infinity"),
}

var number = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`)

func (p *parser) scalar() (any, error) {
	for word, v := range words {
		if rest, ok := strings.CutPrefix(p.rest, word); ok {
			p.rest = rest
			return v, nil
		}
	}
	n := number.FindString(p.rest)
	if n == "" {
		return nil, errors.New("no JSON value")
	}
	p.rest = p.rest[len(n):]
	return json.Number(n), nil
}

func (p *parser) text() (s string, err error) {
	end, plain := quoted(p.rest)
	if end == 0 {
		return "", errors.New("no JSON string")
	}
	q := p.rest[:end]
	if p.rest = p.rest[end:]; plain && utf8.ValidString(q) {
		return q[1 : end-1], nil
	}
	err = json.Unmarshal([]byte(q), &s)
	return s, err
}

// quoted returns the end of the string with which s begins, 0 if there is none, and
// whether it has no escapes. It is a fast path, since configs list the names of
// thousands of modules.
func quoted(s string) (end int, plain bool) {
	if s == "" || s[0] != '"' {
		return 0, false
	}
	plain = true
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1, plain
		case c == '\\':
			i++
			plain = false
		case c < ' ':
			plain = false // control characters are left to encoding/json, which refuses them
		}
	}
	return 0, false
}

func (p *parser) object(depth int) (Object, error) {
	o := Object{}
	seen := map[string]bool{}
	err := p.items('{', '}', func() error {
		p.peek()
		key, err := p.text()
		switch {
		case err != nil:
			return err
		case seen[key]:
			return fmt.Errorf("key %q twice", key)
		case !p.take(':'):
			return fmt.Errorf("no colon after key %q", key)
		}
		seen[key] = true
		v, err := p.value(depth + 1)
		o = append(o, Member{key, v})
		return err
	})
	return o, err
}

func (p *parser) array(depth int) ([]any, error) {
	a := []any{}
	err := p.items('[', ']', func() error {
		v, err := p.value(depth + 1)
		a = append(a, v)
		return err
	})
	return a, err
}

// items reads a list between brackets; it calls item for each element.
func (p *parser) items(open, end byte, item func() error) error {
	p.take(open)
	if p.take(end) {
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if p.take(end) {
			return nil
		}
		if !p.take(',') {
			return fmt.Errorf("no comma or %c", end)
		}
	}
}
