package plan

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/storage"
)

// Rule says something of the weights whose names a pattern finds.
type Rule struct {
	Text    string // what errors call it
	Pattern *pattern.Pattern
	Keep    bool
	Kind    string // "linear" where the name does not tell
	Over    storage.Settings
}

// NewRule compiles a rule, and refuses names in it that do not exist.
func NewRule(r storage.Rule) (Rule, error) {
	made := Rule{Text: cmp.Or(r.Text, r.Pattern), Keep: r.Keep, Kind: r.Kind, Over: r.Layer}
	var err error
	made.Pattern, err = pattern.Compile(r.Pattern)
	if err == nil && r.Kind != "" {
		err = checkKind(r.Kind)
	}
	if err == nil && r.Layer.Dtype != "" {
		_, err = codec.Resolve(r.Layer.Dtype, false) // every layout's names
	}
	if err == nil && r.Keep && (r.Layer != storage.Settings{} || r.Kind != "") {
		err = errors.New("keep stands alone")
	}
	if err != nil {
		return made, usage.Errorf("`Rules` %s: %w", made.Text, err)
	}
	return made, nil
}

// ParseRule reads PATTERN=SETTINGS, e.g. `\.attn\.=uint8,group-size=64`.
func ParseRule(text string) (storage.Rule, error) {
	r := storage.Rule{Text: text}
	expr, settings, ok := cutPattern(text)
	if !ok {
		return r, usage.Errorf("`Rules` %s: want PATTERN=SETTINGS", text)
	}
	if _, err := pattern.Compile(expr); err != nil {
		return r, usage.Errorf("`Rules` %s: %w", text, err)
	}
	r.Pattern = expr
	for item := range strings.SplitSeq(settings, ",") {
		if err := addTo(&r, strings.TrimSpace(item)); err != nil {
			return r, usage.Errorf("`Rules` %s: %w", text, err)
		}
	}
	_, err := NewRule(r)
	return r, err
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

// addTo takes one setting: keep, kind=…, a flag's name with a value, or a dtype.
func addTo(r *storage.Rule, item string) error {
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
		return addDtype(r, value)
	case !hasValue && !codec.IsSetting(key):
		return addDtype(r, item)
	}
	return codec.Parse(&r.Layer, key, value, hasValue)
}

func addDtype(r *storage.Rule, name string) error {
	if other := r.Layer.Dtype; other != "" {
		return usage.Errorf("two dtypes, %s and %s", other, name)
	}
	_, err := codec.Resolve(name, false) // every layout's names
	r.Layer.Dtype = name
	return err
}

var kinds = []string{"linear", "embedding", "conv1d", "conv2d", "conv3d", "conv-transpose1d", "conv-transpose2d", "conv-transpose3d"}

func checkKind(name string) error {
	if !slices.Contains(kinds, name) {
		return usage.Errorf("unknown kind %q%s", name, suggest.HintOrAll(name, kinds))
	}
	return nil
}
