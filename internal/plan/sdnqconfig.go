package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
)

// configOf writes down what the steps do, so that a loader which reruns SDNQ's
// rules on the model comes to the same tensors.
func configOf(steps []Step, d *decider) *sdnqconfig.Config {
	c := sdnqconfig.Default()
	if d.Config != nil {
		c.AddSkipKeys = d.Config.AddSkipKeys
	}
	s := d.global()
	c.Settings = globalSettings(s)
	c.MinNumel, c.MinChannels = d.minNumel, d.minWidth
	d.admitStored(steps, c)
	c.AddSkipKeys = c.AddSkipKeys && d.SkipKeys
	entries := d.skip
	if d.listKeys {
		entries = slices.Concat(entries, d.Preset.SkipKeys)
	}
	c.NotConvert = notConverted(steps, entries, s.ExactReference)
	c.NotMatmul = notMultiplied(steps)
	c.Turn("quant_conv", d.Conv || c.Has("quant_conv"))
	c.Turn("quant_embedding", d.Embedding || c.Has("quant_embedding"))
	c.Shapes = untoldShapes(steps)
	if !keepsExceptions(c, d.Config, steps) {
		exceptions(c, steps)
	}
	return c
}

// notConverted lists the entries in effect that keep no quantized layer, and
// every weight that is kept, by its full name; sdnq itself leaves out names
// that an entry matches already.
func notConverted(steps []Step, skip []string, exact bool) []string {
	list := slices.Clone(skip)
	for i := range steps {
		if s := &steps[i]; s.quantized() {
			list = slices.DeleteFunc(list, func(entry string) bool {
				_, matched := sdnqconfig.Match(s.memoryName(), []string{entry})
				return matched
			})
		}
	}
	entries := slices.Clone(list)
	for i := range steps {
		s := &steps[i]
		if s.Action != Keep || s.quantized() || s.Layer == s.Source.Name {
			continue
		}
		if _, matched := sdnqconfig.Match(s.memoryName(), entries); !matched || !exact {
			list = append(list, s.listNames(exact)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// listNames are the names of a weight that lists have: what it is called in
// memory, against which loaders match, and in the file.
func (s *Step) listNames(exact bool) []string {
	if len(s.Names) > 0 && exact {
		return s.Names
	}
	return append(slices.Clone(s.Names), s.Source.Name)
}

// notMultiplied lists the layers to which quantized matmul does not apply.
func notMultiplied(steps []Step) []string {
	var list []string
	for i := range steps {
		s := &steps[i]
		if s.NoMatmul {
			list = append(list, s.listNames(s.Settings.ExactReference)...)
		}
	}
	slices.Sort(list)
	return list
}

// untoldShapes holds the shapes that no reader could tell from the tensors.
func untoldShapes(steps []Step) pyjson.Object {
	var shapes pyjson.Object
	for i := range steps {
		s := &steps[i]
		if scheme := s.scheme(); scheme != nil && untold(scheme) {
			shapes = append(shapes, pyjson.Member{Key: s.Layer, Value: s.Source.Shape})
		}
	}
	return shapes
}

// untold: one scale for packed codes, or scales that are packed themselves.
func untold(s *sdnq.Scheme) bool {
	scale, zero, _ := s.DoubleQuant()
	return s.Groups() == 1 && s.Dtype.Bitpacked() || scale+zero != "" || s.Kind != sdnq.Linear || s.Transposed
}

// keepsExceptions takes over the exceptions of the user's config as they are,
// if they alone say what the steps do.
func keepsExceptions(c, user *sdnqconfig.Config, steps []Step) bool {
	if user == nil {
		return false
	}
	candidate := *c
	candidate.DtypeLists, candidate.Modules = sortedLists(user.DtypeLists), sortedModules(user.Modules)
	for _, l := range user.DtypeLists {
		if l.IsMinimum() { // may go before another entry once sorted
			return false
		}
	}
	for i := range steps {
		s := &steps[i]
		if s.quantized() && (s.Settings.Dynamic || !says(&candidate, s)) {
			return false
		}
	}
	*c = candidate
	return true
}

// sortedLists and sortedModules are in the order in which readers find the
// keys of the saved file.
func sortedLists(lists []sdnqconfig.DtypeList) []sdnqconfig.DtypeList {
	return slices.SortedFunc(slices.Values(lists), func(a, b sdnqconfig.DtypeList) int { return strings.Compare(a.Key, b.Key) })
}

func sortedModules(modules []sdnqconfig.Module) []sdnqconfig.Module {
	return slices.SortedFunc(slices.Values(modules), func(a, b sdnqconfig.Module) int { return strings.Compare(a.Pattern, b.Pattern) })
}

// stores are the keys that SDNQ's loaders drop where they are global.
var stores = []string{"scale_dtype", "use_codebook_scale", "zero_point_dtype"}

// globalSettings are what the config says of layers without settings of their
// own.
func globalSettings(s codec.Settings) sdnqconfig.Settings {
	keys := s.ConfigKeys()
	if !s.ExactReference {
		for _, key := range stores {
			keys = keys.Delete(key)
		}
	}
	global, _ := sdnqconfig.Default().Settings.With(keys)
	return global
}

// says reports whether the config gives a layer the settings of its step.
func says(c *sdnqconfig.Config, s *Step) bool { return len(differing(c, s)) == 0 }

// differ is differing for one config. Layers with equal settings are compared
// once where the config says the same of all.
func differ(c *sdnqconfig.Config) func(s *Step) pyjson.Object {
	if len(c.Modules)+len(c.DtypeLists)+len(c.NotMatmul) > 0 {
		return func(s *Step) pyjson.Object { return differing(c, s) }
	}
	known := map[*codec.Settings]pyjson.Object{} // which layers share
	return func(s *Step) pyjson.Object {
		keys, ok := known[s.Settings]
		if !ok {
			keys = differing(c, s)
			known[s.Settings] = keys
		}
		return keys
	}
}

// differing are the keys of a layer's settings that the config says otherwise.
func differing(c *sdnqconfig.Config, s *Step) pyjson.Object {
	got, err := c.For(s.memoryName())
	if err != nil {
		return s.Settings.ConfigKeys()
	}
	said := got.Object()
	var keys pyjson.Object
	for _, want := range s.Settings.ConfigKeys() {
		v, _ := said.Get(want.Key)
		if !sameValue(want.Key, v, want.Value) {
			keys = append(keys, want)
		}
	}
	return keys
}

func sameValue(key string, a, b any) bool {
	x, isText := a.(string)
	y, _ := b.(string)
	if key == "weights_dtype" && isText {
		return dtype.Lookup(x) == dtype.Lookup(y)
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// exceptions names every layer that differs from the global settings: in a
// dtype list where the dtype alone differs, else with settings of its own. A
// difference that all layers share is one entry for all.
func exceptions(c *sdnqconfig.Config, steps []Step) {
	if shared := sharedDifference(c, steps); shared != nil {
		c.Modules = []sdnqconfig.Module{{Pattern: "*", Settings: shared}}
		return
	}
	lists := map[string][]string{}
	plain := *c
	differing := differ(&plain)
	for i := range steps {
		s := &steps[i]
		if !s.quantized() {
			continue
		}
		keys := differing(s)
		if s.Settings.Dynamic && len(keys) == 0 { // sdnq lists all that it measured
			keys = pyjson.Object{{Key: "weights_dtype", Value: s.Settings.Dtype}}
		}
		switch name, _ := keys.Get("weights_dtype"); {
		case len(keys) == 1 && name != nil:
			lists[s.Settings.Dtype] = append(lists[s.Settings.Dtype], s.listNames(false)...)
		case len(keys) > 0:
			for _, name := range s.listNames(false) {
				c.Modules = append(c.Modules, sdnqconfig.Module{Pattern: name, Settings: withBasics(keys, s)})
			}
		}
	}
	for name, params := range lists {
		slices.Sort(params)
		c.DtypeLists = append(c.DtypeLists, sdnqconfig.DtypeList{Key: name, Names: params})
	}
	c.DtypeLists, c.Modules = sortedLists(c.DtypeLists), sortedModules(c.Modules)
}

// withBasics adds dtype and group, without which an entry is hard to read.
func withBasics(keys pyjson.Object, s *Step) pyjson.Object {
	for _, m := range s.Settings.ConfigKeys() {
		if m.Key == "weights_dtype" || m.Key == "group_size" || m.Key == "dequantize_fp32" {
			keys = keys.Set(m.Key, m.Value)
		}
	}
	return keys
}

func sameObject(a, b pyjson.Object) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || pyjson.Dump(a) == pyjson.Dump(b)
}

// sharedDifference is what all quantized layers have and the config does not
// say, nil where they do not agree or it says all.
func sharedDifference(c *sdnqconfig.Config, steps []Step) pyjson.Object {
	var shared pyjson.Object
	n := 0
	differing := differ(c)
	for i := range steps {
		s := &steps[i]
		if !s.quantized() {
			continue
		}
		keys := differing(s)
		if n++; n > 1 && !sameObject(keys, shared) {
			return nil
		}
		shared = keys
	}
	for _, m := range shared {
		if !slices.Contains(stores, m.Key) {
			return nil
		}
	}
	return shared
}
