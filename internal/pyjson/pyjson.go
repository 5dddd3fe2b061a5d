// Package pyjson reads and writes JSON as Python does: objects keep the order of their
// keys, and the output is the same as that of Python's json.dumps, so that files can
// equal a reference's byte for byte.
package pyjson

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Member is a key of an object and its value.
type Member struct {
	Key   string
	Value any
}

// Object is a JSON object whose members keep their order. Values are nil, bool, string,
// json.Number, int, []any, []string, []int or Object.
type Object []Member

// Get returns the value of a key, and whether the object has it.
func (o Object) Get(key string) (any, bool) {
	for _, m := range o {
		if m.Key == key {
			return m.Value, true
		}
	}
	return nil, false
}

// Set replaces the value of a key or appends it.
func (o Object) Set(key string, value any) Object {
	for i, m := range o {
		if m.Key == key {
			o = slices.Clone(o)
			o[i].Value = value
			return o
		}
	}
	return append(slices.Clip(o), Member{key, value})
}

// Delete returns a copy of the object without a key.
func (o Object) Delete(key string) Object {
	return slices.DeleteFunc(slices.Clone(o), func(m Member) bool { return m.Key == key })
}

// Dump returns json.dumps(v): with the separators ", " and ": ", in ASCII.
func Dump(v any) string {
	var b strings.Builder
	dump(&b, v, style{between: ", "}, "")
	return b.String()
}

// DumpSorted returns json.dumps(v, indent=2, sort_keys=True) and a line end, the form
// in which diffusers and transformers write configs.
func DumpSorted(v any) string {
	var b strings.Builder
	dump(&b, v, style{between: ",", indent: "  ", sorted: true}, "\n")
	return b.String() + "\n"
}

// DumpIndented returns json.dumps(v, indent=2).
func DumpIndented(v any) string {
	var b strings.Builder
	dump(&b, v, style{between: ",", indent: "  "}, "\n")
	return b.String()
}

type style struct {
	between, indent string
	sorted          bool
	strict          bool // standard JSON, without NaN and infinities as numbers
}

// dump writes v; newline is the line end followed by the indentation of v's line.
func dump(b *strings.Builder, v any, s style, newline string) {
	switch v := v.(type) {
	case Object:
		dumpObject(b, v, s, newline)
	case []any:
		dumpList(b, v, s, newline)
	case []string:
		dumpList(b, v, s, newline)
	case []int:
		dumpList(b, v, s, newline)
	case string:
		dumpString(b, v)
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case nil:
		b.WriteString("null")
	case json.Number:
		if s.strict && slices.Contains(notNumbers, v.String()) {
			dumpString(b, v.String())
			return
		}
		b.WriteString(v.String())
	default: // int
		fmt.Fprint(b, v)
	}
}

// notNumbers are what Python's JSON accepts as numbers beyond the standard.
var notNumbers = []string{"NaN", "Infinity", "-Infinity"}

func dumpObject(b *strings.Builder, o Object, s style, newline string) {
	if s.sorted {
		o = slices.Clone(o)
		slices.SortFunc(o, func(x, y Member) int { return strings.Compare(x.Key, y.Key) })
	}
	enclose(b, "{}", len(o), s, newline, func(i int, newline string) {
		dumpString(b, o[i].Key)
		b.WriteString(": ")
		dump(b, o[i].Value, s, newline)
	})
}

func dumpList[T any](b *strings.Builder, list []T, s style, newline string) {
	enclose(b, "[]", len(list), s, newline, func(i int, newline string) {
		dump(b, list[i], s, newline)
	})
}

func enclose(b *strings.Builder, brackets string, n int, s style, newline string, item func(i int, newline string)) {
	b.WriteByte(brackets[0])
	inner := newline
	if s.indent != "" {
		inner += s.indent
	}
	for i := range n {
		if i > 0 {
			b.WriteString(s.between)
		}
		b.WriteString(inner)
		item(i, inner)
	}
	if n > 0 {
		b.WriteString(newline)
	}
	b.WriteByte(brackets[1])
}

// dumpString writes a string with Python's escapes: \uXXXX for everything beyond ASCII.
func dumpString(b *strings.Builder, s string) {
	b.WriteByte('"')
	plain := 0
	for plain < len(s) && isPlain(s[plain]) {
		plain++
	}
	b.WriteString(s[:plain])
	for _, r := range s[plain:] {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r > 0xFFFF:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, hi, lo)
		case r < 0x20 || r > 0x7E:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// isPlain reports whether a byte needs no escape in a string.
func isPlain(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '\\' }

// MarshalJSON writes the members in their order. NaN and infinities, which are numbers
// in Python's JSON but not in standard JSON, become strings.
func (o Object) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	dump(&b, o, style{between: ", ", strict: true}, "")
	return []byte(b.String()), nil
}
