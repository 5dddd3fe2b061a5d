package ctq

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/storage"
)

// LayerConfig is a file of settings by patterns of layer names.
type LayerConfig struct {
	entries []entry // the most specific first, _default last
}

type entry struct {
	text    string
	pattern *pattern.Pattern // nil for _default
	settings
}

// settings are what an entry says of its layers.
type settings struct {
	skip          bool
	format        string
	blockSize     *int // nil where nothing is said, 0 for null
	scalingMode   string
	simple        bool
	fullPrecision *bool
}

// formats that an entry may name.
var formats = []string{
	"float8_e4m3fn", "float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "float8_e4m3fn_block3d",
	"int8_blockwise", "int8_tensorwise", "nvfp4", "mxfp8", "hybrid_mxfp8",
}

const defaultEntry = "_default"

// ParseLayerConfig reads a layer config. Patterns are searched in layers'
// names, which they match as a whole where full is set.
func ParseLayerConfig(text []byte, full bool) (*LayerConfig, error) {
	o, err := pyjson.ParseObject(text)
	if err != nil {
		return nil, err
	}
	c := &LayerConfig{}
	for _, m := range o {
		settings, _ := m.Value.(pyjson.Object)
		if strings.HasPrefix(m.Key, "_") && (m.Key != defaultEntry || len(settings) == 0) {
			continue // a remark
		}
		e, err := parseEntry(m, full)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Key, err)
		}
		c.entries = append(c.entries, e)
	}
	slices.SortStableFunc(c.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.tier(), b.tier()), cmp.Compare(b.literals(), a.literals()))
	})
	return c, nil
}

func parseEntry(m pyjson.Member, full bool) (e entry, err error) {
	o, ok := m.Value.(pyjson.Object)
	if !ok {
		return e, errors.New("want an object of settings")
	}
	e.text = m.Key
	if e.settings, err = parseSettings(o); err != nil {
		return e, err
	}
	if !e.skip && !slices.Contains(formats, e.format) {
		return e, fmt.Errorf("format %q: want one of %s, or \"skip\": true", e.format, strings.Join(formats, ", "))
	}
	if m.Key == defaultEntry {
		return e, nil
	}
	expr := m.Key
	if full {
		expr = `\A(?:` + expr + `)\Z`
	}
	e.pattern, err = pattern.Compile(expr)
	return e, err
}

// parseSettings ignores what it does not know, as the reference does.
func parseSettings(o pyjson.Object) (s settings, err error) {
	for _, m := range o {
		ok := true
		switch m.Key {
		case "skip":
			s.skip, ok = truth(m.Value)
		case "format":
			s.format, ok = m.Value.(string)
		case "block_size":
			var n int
			n, ok = blockSize(m.Value)
			s.blockSize = &n
		case "scaling_mode":
			s.scalingMode, ok = m.Value.(string)
			ok = m.Value == nil || ok && scales[s.scalingMode] != ""
		case "simple":
			s.simple, ok = truth(m.Value)
		case "full_precision_matrix_mult":
			var on bool
			on, ok = truth(m.Value)
			s.fullPrecision = &on
		}
		if !ok {
			return s, fmt.Errorf("%s is %s, which it cannot be", m.Key, pyjson.Dump(m.Value))
		}
	}
	return s, nil
}

// truth is a switch: null is off.
func truth(v any) (on, ok bool) {
	on, ok = v.(bool)
	return on, ok || v == nil
}

// blockSize is a whole number above 0, or 0 for null.
func blockSize(v any) (n int, ok bool) {
	if v == nil {
		return 0, true
	}
	text, _ := v.(json.Number)
	n, err := strconv.Atoi(text.String())
	return n, err == nil && n > 0
}

// tier and literals order entries: the more they say literally, the earlier
// they count; _default counts last.
func (e *entry) tier() int {
	switch {
	case e.pattern == nil:
		return 2
	case strings.Contains(e.text, `\d`) && e.literals() >= 8:
		return 0
	}
	return 1
}

// literals counts what is left without escapes and special characters.
func (e *entry) literals() (n int) {
	text := []rune(e.text)
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
		case !strings.ContainsRune(`.*+?^${}|\`, text[i]):
			n++
		}
	}
	return n
}

// match tells the layers of an entry.
func (e *entry) match(t checkpoint.Tensor) (bool, error) {
	if e.pattern == nil {
		return true, nil
	}
	return e.pattern.Match(strings.TrimSuffix(t.Name, ".weight"))
}

func (e *entry) rule() plan.ListRule {
	return plan.ListRule{Why: "layer config " + e.text, Match: e.match, Keep: e.skip}
}

// Rules are what the file asks of a plan, in words of ours: formats are what
// their names say, and have the block sizes and scales that they can have.
func (c *LayerConfig) Rules() []plan.ListRule {
	var rules []plan.ListRule
	for i := range c.entries {
		e := &c.entries[i]
		r := e.rule()
		if !e.skip {
			r.Over = e.over()
		}
		rules = append(rules, r)
	}
	return rules
}

// over says a scale only of those formats whose name leaves it open.
func (e *entry) over() storage.Settings {
	over := storage.Settings{Dtype: e.format, FullPrecisionMatmul: e.fullPrecision}
	open := e.format == "float8_e4m3fn" || e.format == "int8_tensorwise"
	scale := scales[e.scalingMode]
	if open {
		over.Scale = scale
	}
	blocks := strings.Contains(e.format, "block") || open && scale == "block"
	if blocks && e.blockSize != nil && *e.blockSize > 0 {
		over.BlockSize = e.blockSize
	}
	return over
}

// scales are --scale's words for scaling modes.
var scales = map[string]string{"tensor": "tensor", "row": "row", "block": "block", "block2d": "block", "block3d": "block"}
