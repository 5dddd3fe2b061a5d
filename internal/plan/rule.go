package plan

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Overrides are settings that were given, by the names of their flags.
type Overrides = codec.Given

// Rule is a --set: settings for the weights whose name a pattern finds.
type Rule struct {
	Text    string
	Pattern *pattern.Pattern
	Keep    bool
	Kind    string // "linear" where the name does not tell
	Over    Overrides
}

// ParseRule reads PATTERN=SETTINGS, e.g. `\.attn\.=uint8,group-size=64`.
func ParseRule(text string) (Rule, error) {
	r := Rule{Text: text, Over: Overrides{}}
	expr, settings, ok := cutPattern(text)
	if !ok {
		return r, usage.Errorf("`Set` %s: want PATTERN=SETTINGS", text)
	}
	var err error
	if r.Pattern, err = pattern.Compile(expr); err != nil {
		return r, usage.Errorf("`Set` %s: %w", text, err)
	}
	for item := range strings.SplitSeq(settings, ",") {
		if err := r.add(strings.TrimSpace(item)); err != nil {
			return r, usage.Errorf("`Set` %s: %w", text, err)
		}
	}
	if r.Keep && (len(r.Over) > 0 || r.Kind != "") {
		return r, usage.Errorf("`Set` %s: keep stands alone", text)
	}
	return r, nil
}

// cutPattern ends the pattern at the first = outside brackets and parentheses.
func cutPattern(text string) (expr, settings string, ok bool) {
	depth, class := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
			rest := strings.TrimPrefix(strings.TrimPrefix(text[i+1:], "^"), "]") // a ] that comes first is one of the class
			i = len(text) - len(rest) - 1
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '=' && depth <= 0:
			return text[:i], text[i+1:], true
		}
	}
	return "", "", false
}

// add takes one setting: keep, kind=…, a flag's name with a value, or a dtype.
func (r *Rule) add(item string) error {
	key, value, hasValue := strings.Cut(item, "=")
	switch {
	case key == "keep" && hasValue:
		return usage.Errorf("keep takes no value")
	case key == "keep":
		r.Keep = true
		return nil
	case key == "kind":
		r.Kind = value
		return checkKind(value)
	case key == "dtype":
		return r.dtype(value)
	case !hasValue && !isSetting(key):
		return r.dtype(item)
	}
	return r.Over.Parse(key, value, hasValue)
}

var kinds = []string{"linear", "embedding", "conv1d", "conv2d", "conv3d", "conv-transpose1d", "conv-transpose2d", "conv-transpose3d"}

func checkKind(name string) error {
	if !slices.Contains(kinds, name) {
		return usage.Errorf("unknown kind %q%s", name, suggest.HintOrAll(name, kinds))
	}
	return nil
}

func isSetting(name string) bool {
	for _, f := range codec.Fields() {
		if f.Flag == name {
			return true
		}
	}
	return false
}

func (r *Rule) dtype(name string) error {
	if other, ok := r.Over["dtype"]; ok {
		return usage.Errorf("two dtypes, %v and %s", other, name)
	}
	_, err := codec.Resolve(name, false) // every layout's names
	r.Over["dtype"] = name
	return err
}
