package app

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
)

// ComfyModel is what ComfyUI takes a checkpoint for, by the names of its
// tensors. nil stands for a model that it does not know by them, of which
// nothing is said.
type ComfyModel struct {
	*comfyKind
	prefix string // which it strips from the names of a diffusion model
	err    error
}

// RecogniseComfy finds what ComfyUI takes tensors of these names and shapes
// for, nil if it does not know.
func RecogniseComfy(tensors iter.Seq2[string, []int]) *ComfyModel {
	inv := newNames(tensors)
	if m := inv.find(comfyControl, ""); m != nil {
		return m
	}
	prefix := inv.prefix()
	if m := inv.find(comfyDiffusion, prefix); m != nil {
		return m
	}
	for _, kinds := range [][]comfyKind{comfyTexts, comfyOthers} {
		if m := inv.find(kinds, ""); m != nil {
			return m
		}
	}
	if m := inv.find(comfyRenamed, prefix); m != nil {
		return m
	}
	return inv.behind(prefix)
}

// behind finds a diffusion model after a prefix that ComfyUI does not strip.
func (inv names) behind(stripped string) *ComfyModel {
	for _, prefix := range []string{"", "diffusion_model.", "transformer.", "unet.", "model.diffusion_model."} {
		if prefix == stripped {
			continue
		}
		if m := inv.find(comfyDiffusion, prefix); m != nil && m.err == nil {
			m.err = fmt.Errorf("ComfyUI does not strip %s from the names of a model (%s): model.diffusion_model., model.model., net. and model. are those that it knows", prefix, m.name)
			return m
		}
		if m := inv.find(comfyRenamed, prefix); m != nil {
			return m
		}
	}
	return nil
}

// Err says why ComfyUI would not read quantized layers in the model.
func (m *ComfyModel) Err() error {
	if m == nil {
		return nil
	}
	return m.err
}

// Stored is a quantized layer's weight.
type Stored struct {
	Name          string // of the weight
	Format        string
	Shape, Packed []int // of the weight, and of the tensor that holds its codes
}

// CheckLayer says why ComfyUI would not read a layer as it is stored, or not
// know the model for it.
func (m *ComfyModel) CheckLayer(s Stored) error {
	if m == nil || m.err != nil {
		return nil // Err has said so of all
	}
	name, ok := strings.CutPrefix(s.Name, m.prefix)
	if !ok {
		return m.checkOutside(s)
	}
	if err := checkModule(m.other, name, s.Format); err != nil {
		return err
	}
	sides, ok := lookup(m.reads, name)
	if !ok {
		return nil
	}
	for _, side := range sides {
		i := int(side - '0')
		if i < len(s.Shape) && (i >= len(s.Packed) || s.Packed[i] != s.Shape[i]) {
			return fmt.Errorf("ComfyUI tells the model (%s) by the shape of this weight, %v, and %s stores it as %v", m.name, s.Shape, s.Format, s.Packed)
		}
	}
	return nil
}

// checkOutside is that of layers beside the diffusion model of an all-in-one
// checkpoint: some text encoders alone are read quantized.
func (m *ComfyModel) checkOutside(s Stored) error {
	for _, text := range strings.Fields(m.texts) {
		if name, ok := strings.CutPrefix(s.Name, "text_encoders."+text+".transformer."); ok {
			return checkModule(t5Other+" "+languageOther, name, s.Format)
		}
	}
	return fmt.Errorf("ComfyUI reads it plain: in this checkpoint (%s) it looks for quantized layers %s", m.name, m.places())
}

// places are where quantized layers are read.
func (m *ComfyModel) places() string {
	list := []string{"after " + m.prefix}
	for _, text := range strings.Fields(m.texts) {
		list = append(list, "text_encoders."+text+".transformer.")
	}
	return strings.Join(list, " and ")
}

// embeddingFormats are those that ComfyUI's embeddings read; others they take
// for plain numbers.
func embeddingFormats() (names []string) {
	for _, f := range codec.Formats() {
		if f.Embeddings != "" {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

func checkModule(other, name, format string) error {
	kind, ok := lookup(other, name)
	switch {
	case !ok:
		return nil
	case kind != "embedding":
		return fmt.Errorf("ComfyUI reads this weight with a module that takes no quantized one")
	case !slices.Contains(embeddingFormats(), format):
		return fmt.Errorf("ComfyUI reads this embedding as %s alone, not as %s", strings.Join(embeddingFormats(), ", "), format)
	}
	return nil
}

// lookup finds a name in a list of NAME:WHAT.
func lookup(list, name string) (what string, ok bool) {
	for entry := range strings.FieldsSeq(list) {
		pattern, what, _ := strings.Cut(entry, ":")
		if matchNumbers(pattern, name) {
			return what, true
		}
	}
	return "", false
}

// matchNumbers compares names part by part; # stands for any number.
func matchNumbers(pattern, name string) bool {
	for {
		p, morePattern, ok1 := strings.Cut(pattern, ".")
		n, moreName, ok2 := strings.Cut(name, ".")
		if ok1 != ok2 || p != n && (p != "#" || n == "" || strings.Trim(n, "0123456789") != "") {
			return false
		}
		if !ok1 {
			return true
		}
		pattern, name = morePattern, moreName
	}
}

// names are the tensors of a checkpoint, ascending.
type names []named

type named struct {
	name string
	rows int
}

func newNames(tensors iter.Seq2[string, []int]) names {
	var inv names
	for name, shape := range tensors {
		n := named{name: name}
		if len(shape) > 0 {
			n.rows = shape[0]
		}
		inv = append(inv, n)
	}
	byName := func(a, b named) int { return strings.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(inv, byName) {
		slices.SortFunc(inv, byName)
	}
	return inv
}

// prefix is what ComfyUI strips: the one of its three that most names have, else
// "model.", where a name has it.
func (inv names) prefix() string {
	most, best := 0, "model."
	for _, prefix := range []string{"model.diffusion_model.", "model.model.", "net."} {
		if n := inv.under(prefix); n > most {
			most, best = n, prefix
		}
	}
	if inv.under(best) == 0 {
		return ""
	}
	return best
}

// under counts the names that begin so.
func (inv names) under(prefix string) int {
	from, _ := inv.search(prefix)
	to, _ := inv.search(strings.TrimSuffix(prefix, ".") + "/") // what follows a dot
	return to - from
}

func (inv names) search(name string) (int, bool) {
	return slices.BinarySearchFunc(inv, name, func(n named, name string) int { return strings.Compare(n.name, name) })
}

// has looks for a name, the beginning of one, or one with so many rows.
func (inv names) has(prefix, name string) bool {
	name, rows, counted := strings.Cut(name, "=")
	i, found := inv.search(prefix + name)
	if strings.HasSuffix(name, ".") {
		return i < len(inv) && strings.HasPrefix(inv[i].name, prefix+name)
	}
	return found && (!counted || strconv.Itoa(inv[i].rows) == rows)
}

func (inv names) find(kinds []comfyKind, prefix string) *ComfyModel {
	for i := range kinds {
		k := &kinds[i]
		if !slices.ContainsFunc(k.signs, func(sign string) bool { return inv.matches(sign, prefix) }) {
			continue
		}
		m := &ComfyModel{comfyKind: k, prefix: prefix}
		if k.why != "" {
			m.err = fmt.Errorf("%s: %s", k.name, k.why)
		}
		return m
	}
	return nil
}

func (inv names) matches(sign, prefix string) bool {
	all, none, _ := strings.Cut(sign, "|")
	for name := range strings.FieldsSeq(all) {
		if !inv.has(prefix, name) {
			return false
		}
	}
	for name := range strings.FieldsSeq(none) {
		if inv.has(prefix, name) {
			return false
		}
	}
	return true
}
