package ctq

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// editQuant is --edit-quant.
func (r *rewriting) editQuant() error {
	if !r.Has("remove_keys") && !r.Has("add_keys") && !r.Has("save_quant_metadata") {
		return usage.Errorf("--edit-quant needs --remove-keys, --add-keys or --save-quant-metadata")
	}
	header, err := r.headerLayers()
	if err != nil {
		return err
	}
	e := &editor{rewriting: r, add: parseKeys(r.Text("add_keys"))}
	for _, key := range strings.Split(r.Text("remove_keys"), ",") {
		e.remove = append(e.remove, strings.TrimSpace(key))
	}
	if r.Has("quant_filter") {
		if e.only, err = pattern.Compile(r.Text("quant_filter")); err != nil {
			return usage.Wrap(err)
		}
	}
	if header, err = e.layers(header); err != nil {
		return err
	}
	switch {
	case r.Has("save_quant_metadata"):
		return e.rebuild()
	case header != nil:
		r.header(header)
	}
	return nil
}

type editor struct {
	*rewriting
	add    pyjson.Object
	remove []string
	only   *pattern.Pattern
}

// layers edits every description, and the header's of the same layers.
func (e *editor) layers(header pyjson.Object) (pyjson.Object, error) {
	for _, base := range e.bases(description) {
		if ok, err := e.chosen(base); err != nil || !ok {
			if err != nil {
				return nil, err
			}
			continue
		}
		o, err := e.described(base)
		if err != nil {
			return nil, err
		}
		if edited := e.edit(o); pyjson.Dump(edited) != pyjson.Dump(o) {
			e.describe(base, edited)
		}
		if v, ok := header.Get(base); ok {
			entry, _ := v.(pyjson.Object)
			header = header.Set(base, e.edit(entry))
		}
	}
	return header, e.create(header)
}

func (e *editor) chosen(base string) (bool, error) {
	if e.only == nil {
		return true, nil
	}
	return e.only.Match(base)
}

func (e *editor) edit(o pyjson.Object) pyjson.Object {
	for _, key := range e.remove {
		o = o.Delete(key)
	}
	for _, m := range e.add {
		o = o.Set(m.Key, m.Value)
	}
	return o
}

// create describes layers that the header alone describes.
func (e *editor) create(header pyjson.Object) error {
	for _, m := range header {
		w, ok := e.weight(m.Key)
		if !ok || e.has(m.Key+description) {
			continue
		}
		if found, err := e.chosen(m.Key); err != nil || !found {
			if err != nil {
				return err
			}
			continue
		}
		entry, _ := m.Value.(pyjson.Object)
		o := picked(entry, "format", "group_size", "full_precision_matrix_mult")
		if _, ok := o.Get("format"); !ok {
			guess := "float8_e4m3fn"
			if w.Dtype == safetensors.I8 {
				guess = "int8_blockwise"
			}
			o = append(pyjson.Object{{Key: "format", Value: guess}}, o...)
		}
		for _, add := range e.add {
			o = o.Set(add.Key, add.Value)
		}
		e.describe(m.Key, o)
	}
	return nil
}

// rebuild makes the header entry from the descriptions, with these keys alone.
func (e *editor) rebuild() error {
	layers := pyjson.Object{}
	for _, base := range e.bases(description) {
		o, err := pyjson.ParseObject(e.text(base))
		if err != nil {
			return err
		}
		layers = append(layers, pyjson.Member{Key: base, Value: picked(o, "format", "group_size", "full_precision_matrix_mult", "orig_dtype")})
	}
	e.header(layers)
	return nil
}

// text is a layer's JSON as it is to be.
func (e *editor) text(base string) []byte {
	edit := e.edits[base+description]
	if edit.Data != nil {
		return edit.Data
	}
	text := make([]byte, edit.Source.Size)
	_ = e.source.ReadSection(edit.Source, text, 0) // read before
	return text
}

func picked(o pyjson.Object, keys ...string) (list pyjson.Object) {
	list = pyjson.Object{}
	for _, key := range keys {
		if v, ok := o.Get(key); ok {
			list = append(list, pyjson.Member{Key: key, Value: v})
		}
	}
	return list
}

// headerLayers are those of the source's header, nil for none.
func (r *rewriting) headerLayers() (pyjson.Object, error) {
	text, ok := r.source.Metadata[layout.HeaderKey]
	if !ok {
		return nil, nil
	}
	o, err := pyjson.ParseObject([]byte(text))
	if err != nil {
		return nil, err
	}
	layers, _ := o.Get("layers")
	entries, _ := layers.(pyjson.Object)
	return entries, nil
}

// parseKeys reads 'key': value, … with values in single quotes as text, true
// and false, and numbers.
func parseKeys(text string) (o pyjson.Object) {
	for item := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(item, ":")
		if key = strings.Trim(strings.TrimSpace(key), "'"); ok && key != "" {
			o = o.Set(key, keyValue(strings.TrimSpace(value)))
		}
	}
	return o
}

func keyValue(text string) any {
	if len(text) > 1 && text[0] == '\'' && text[len(text)-1] == '\'' {
		return text[1 : len(text)-1]
	}
	switch strings.ToLower(text) {
	case "true":
		return true
	case "false":
		return false
	}
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	if x, err := strconv.ParseFloat(text, 64); err == nil && strings.Contains(text, ".") {
		return json.Number(floatText(x))
	}
	return text
}

// floatText is Python's repr of a float.
func floatText(x float64) string {
	if exp := math.Abs(x); x != 0 && (exp < 1e-4 || exp >= 1e16) {
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	text := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
