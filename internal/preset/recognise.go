package preset

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// inventory is the tensor names of a checkpoint, ascending.
type inventory struct{ names []string }

func newInventory(tensors iter.Seq2[string, []int]) *inventory {
	inv := new(inventory)
	for name := range tensors {
		inv.names = append(inv.names, name)
	}
	slices.Sort(inv.names)
	return inv
}

// has reports whether there is such a name or, if it ends in a dot, a name that begins
// with it.
func (inv *inventory) has(name string) bool {
	i, found := slices.BinarySearch(inv.names, name)
	if !strings.HasSuffix(name, ".") {
		return found
	}
	return i < len(inv.names) && strings.HasPrefix(inv.names[i], name)
}

func (inv *inventory) matches(s *Sign, prefix string) bool {
	for _, name := range s.All {
		if !inv.has(prefix + name) {
			return false
		}
	}
	return !slices.ContainsFunc(s.None, func(name string) bool { return inv.has(prefix + name) })
}

// prefixes are what single files put before the network's tensor names.
var prefixes = []string{"", "model.diffusion_model.", "diffusion_model.", "model.model.", "net.", "model.", "transformer."}

// find returns the first sign of a family that the names fit after one of the prefixes.
func (inv *inventory) find(f *Family) (s *Sign, prefix string) {
	for _, prefix := range prefixes {
		for i := range f.Signs {
			if inv.matches(&f.Signs[i], prefix) {
				return &f.Signs[i], prefix
			}
		}
	}
	return nil, ""
}

// highest returns the highest number that stands between before and after in a name.
func (inv *inventory) highest(before, after string) string {
	most := 0
	for _, name := range inv.names {
		rest, ok := strings.CutPrefix(name, before)
		digits, tail, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(digits); ok && err == nil && strings.HasPrefix("."+tail, after) {
			most = max(most, n)
		}
	}
	return strconv.Itoa(most)
}

// fused returns the weights that an attention module of torch reads directly, not
// through a linear layer.
func (inv *inventory) fused() map[string]bool {
	inside := map[string]bool{}
	for _, name := range inv.names {
		if layer, ok := strings.CutSuffix(name, "in_proj_weight"); ok {
			inside[layer+"out_proj.weight"] = true
		}
	}
	return inside
}

// Recognise finds the preset for a checkpoint by its config, which may be nil, or else
// by its tensor names, and fits it to the checkpoint. If nothing is recognised it
// returns generic. why says what identified the family.
func Recognise(config map[string]json.RawMessage, tensors iter.Seq2[string, []int]) (p *Preset, why string) {
	inv := newInventory(tensors)
	name := className(config)
	if f, _ := findClass(name); f != nil {
		// names distinguish families with the same class
		if g, s, prefix := inv.family(); g != nil && g != f && g.sharesClass(s, name) {
			return g.row().fit(config, inv), fmt.Sprintf("the config names %s and there is %s", name, describe(s, prefix))
		}
		return f.row().fit(config, inv), "the config names " + name
	}
	if f, s, prefix := inv.family(); f != nil {
		return f.row().fit(config, inv), "there is " + describe(s, prefix)
	}
	if _, known := diffusersFacts[name]; known || classSkipKeys[name] != nil {
		return presets[1].fit(config, inv), "no family, but the config names " + name
	}
	return presets[1].fit(config, inv), "no family is recognised"
}

func describe(s *Sign, prefix string) string {
	if prefix == "" {
		return s.String()
	}
	return fmt.Sprintf("%v after %s", s, prefix)
}

func (f *Family) row() *Preset {
	p, err := ByName(f.Name)
	if err != nil {
		panic(err) // every family has a preset
	}
	return p
}

// sharesClass reports whether f, of which s is a sign, has a class that the config
// names and that another family has as well.
func (f *Family) sharesClass(s *Sign, name string) bool {
	return s.Class == name || f.class(name, true) != nil
}

// prefix is what all names begin with of what single files put before the network's.
func (inv *inventory) prefix() string {
	for _, prefix := range prefixes[1:] {
		if !slices.ContainsFunc(inv.names, func(name string) bool { return !strings.HasPrefix(name, prefix) }) {
			return prefix
		}
	}
	return ""
}

func (inv *inventory) family() (*Family, *Sign, string) {
	for i := range families {
		if s, prefix := inv.find(&families[i]); s != nil {
			return &families[i], s, prefix
		}
	}
	return nil, nil, ""
}

// className returns the class that a config names, "" if it names none.
func className(config map[string]json.RawMessage) string {
	var name string
	if json.Unmarshal(config["_class_name"], &name) == nil && name != "" {
		return name
	}
	var names []string
	if json.Unmarshal(config["architectures"], &names) == nil && len(names) > 0 {
		return names[0]
	}
	return ""
}

// For fits a preset to a checkpoint: it takes SDNQ's list for the checkpoint's class,
// under the names that the file uses, and adds what depends on its tensors.
func (p *Preset) For(config map[string]json.RawMessage, tensors iter.Seq2[string, []int]) *Preset {
	return p.fit(config, newInventory(tensors))
}

func (p *Preset) fit(config map[string]json.RawMessage, inv *inventory) *Preset {
	q := *p
	q.inside = inv.fused()
	if !q.reference {
		q.predicting = inv.predicting(config)
	}
	if q.finalOnly {
		q.Parts = slices.Concat(q.Parts, finalLayers(slices.Values(inv.names)))
	}
	if p.family == nil { // the preset "none"
		return &q
	}
	s, prefix := inv.find(p.family)
	q.prefix = prefix
	if s == nil {
		q.prefix = inv.prefix()
	}
	q.class = p.family.classOf(className(config), s)
	if s != nil && s.Single {
		q.class.renames = nil
		q.SkipKeys = commonSkipKeys
		if p.family.Single != nil {
			q.SkipKeys = prefixed(p.family.Single, prefix)
		}
		return &q
	}
	q.SkipKeys = prefixed(q.class.skipKeys(q.class.isTied(config, inv), inv.highest), prefix)
	return &q
}

// classOf returns the class that the config names if it is one of the family, else the
// class that the tensors show.
func (f *Family) classOf(name string, s *Sign) class {
	for _, exact := range []bool{true, false} {
		if c := f.class(name, exact); c != nil {
			return *c
		}
	}
	switch {
	case s != nil && s.Class != "":
		if c := f.class(s.Class, true); c != nil {
			return *c
		}
		return class{name: s.Class}
	case len(f.Classes) > 0:
		return f.Classes[0]
	}
	return class{name: name}
}

// prefixed puts a prefix before the entries that SDNQ matches from the start of a name.
func prefixed(entries []string, prefix string) []string {
	if prefix == "" {
		return entries
	}
	entries = slices.Clone(entries)
	for i, e := range entries {
		if rest, ok := strings.CutPrefix(e, "."); ok {
			entries[i] = "." + prefix + rest
		} else if strings.ContainsAny(e, ".*") {
			entries[i] = prefix + e
		}
	}
	return entries
}

// isTied reports whether the output's weight is tied: as the config says, or else if
// the file lacks that weight.
func (c *class) isTied(config map[string]json.RawMessage, inv *inventory) bool {
	if len(c.tied) == 0 {
		return false
	}
	var tied bool
	if raw, ok := config["tie_word_embeddings"]; ok && json.Unmarshal(raw, &tied) == nil {
		return tied
	}
	for _, name := range inv.names {
		if strings.HasSuffix("."+name, "."+c.tied[0]) {
			return false
		}
	}
	return true
}
