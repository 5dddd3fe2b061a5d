package app

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/codec"
)

// ComfyModel is the model that ComfyUI recognises by a checkpoint's tensor names. nil
// is a model that it does not recognise by them; all checks accept it.
type ComfyModel struct {
	*comfyKind
	prefix string // the prefix that ComfyUI strips from the names of a diffusion model
	err    error
	home   Kind // what a file is that holds it
}

// RecogniseComfy returns the model that ComfyUI would recognise by tensors of these
// names and shapes, nil for none.
func RecogniseComfy(tensors iter.Seq2[string, []int]) *ComfyModel {
	inv := newNames(tensors)
	if m := inv.find(comfyControl, "", controlnet); m != nil {
		return m
	}
	prefix := inv.prefix()
	if m := inv.find(comfyDiffusion, prefix, diffusionModelFile); m != nil {
		m.home = inv.whole(m.home)
		return m
	}
	if m := inv.find(comfyTexts, "", textEncoderFile); m != nil {
		return m
	}
	if m := inv.find(comfyOthers, "", unsure); m != nil {
		return m
	}
	if m := inv.find(comfyRenamed, prefix, diffusionModelFile); m != nil {
		return m
	}
	return inv.behind(prefix)
}

// whole is the kind of a file that holds a diffusion model, and perhaps more.
func (inv names) whole(kind Kind) Kind {
	for _, more := range comfyCheckpoints {
		if kind == diffusionModelFile && slices.ContainsFunc(more.signs, func(sign string) bool { return inv.matches(sign, "") }) {
			return more.kind
		}
	}
	return kind
}

// behind looks for a diffusion model after a prefix that ComfyUI does not strip.
func (inv names) behind(stripped string) *ComfyModel {
	for _, prefix := range []string{"", "diffusion_model.", "transformer.", "unet.", "model.diffusion_model."} {
		if prefix == stripped {
			continue
		}
		if m := inv.find(comfyDiffusion, prefix, diffusionModelFile); m != nil && m.err == nil {
			m.err = fmt.Errorf("ComfyUI does not strip %s from the names of a model (%s): model.diffusion_model., model.model., net. and model. are those that it knows", prefix, m.name)
			return m
		}
		if m := inv.find(comfyRenamed, prefix, diffusionModelFile); m != nil {
			return m
		}
	}
	return nil
}

// Kind is the kind of model as messages call it, "" for none that is known.
func (m *ComfyModel) Kind() string {
	if m == nil {
		return ""
	}
	return m.name
}

// Prefix is what the names of a diffusion model begin with, which ComfyUI strips, and
// diffusion reports whether the model is one, under the model's own names.
func (m *ComfyModel) Prefix() (prefix string, diffusion bool) {
	if m == nil || !slices.ContainsFunc(comfyDiffusion, func(k comfyKind) bool {
		return k.name == m.name && strings.Join(k.signs, "|") == strings.Join(m.signs, "|")
	}) {
		return "", false
	}
	return m.prefix, true
}

// Err returns why ComfyUI would not read quantized layers in the model, nil if it
// would.
func (m *ComfyModel) Err() error {
	if m == nil {
		return nil
	}
	return m.err
}

// Stored describes the stored weight of a quantized layer.
type Stored struct {
	Name          string // of the weight
	Format        string
	Shape, Packed []int // shape of the weight, and of the tensor that holds its codes
}

// CheckLayer returns why ComfyUI would not read a layer as it is stored, or would not
// recognise the model because of it.
func (m *ComfyModel) CheckLayer(s Stored) error {
	if m == nil && s.isBank() {
		return errNoBank
	}
	if m == nil || m.err != nil {
		return nil // Err reports it for the whole model
	}
	name, ok := strings.CutPrefix(s.Name, m.prefix)
	if !ok {
		return m.checkOutside(s)
	}
	if err := s.checkBank(m.banks, name); err != nil {
		return err
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

// errNoBank is of experts in one tensor that no module of the model reads quantized.
var errNoBank = errors.New("ComfyUI reads the experts of a layer quantized in gpt-oss alone")

// isBank reports whether a layer is matrices in one tensor.
func (s *Stored) isBank() bool {
	f := codec.Lookup(s.Format)
	return len(s.Shape) == 3 && f != nil && f != codec.SDNQ()
}

// checkBank returns why ComfyUI would not read experts in one tensor, whose names are
// among the banks of the model if it does.
func (s *Stored) checkBank(banks, name string) error {
	if _, ok := lookup(banks, name); s.isBank() && !ok {
		return errNoBank
	}
	return nil
}

// checkOutside is CheckLayer for layers outside of the diffusion model, in an
// all-in-one checkpoint. Only some text encoders may be quantized there.
func (m *ComfyModel) checkOutside(s Stored) error {
	for _, text := range strings.Fields(m.texts) {
		if name, ok := strings.CutPrefix(s.Name, "text_encoders."+text+".transformer."); ok {
			banks := ""
			if text == gptOss {
				banks = gptOssBanks
			}
			return cmp.Or(s.checkBank(banks, name), checkModule(t5Other+" "+languageOther, name, s.Format))
		}
	}
	return fmt.Errorf("ComfyUI reads it plain: in this checkpoint (%s) it looks for quantized layers %s", m.name, m.places())
}

// places says where in the model ComfyUI reads quantized layers.
func (m *ComfyModel) places() string {
	list := []string{"after " + m.prefix}
	for _, text := range strings.Fields(m.texts) {
		list = append(list, "text_encoders."+text+".transformer.")
	}
	return strings.Join(list, " and ")
}

// embeddingFormats are the formats that ComfyUI reads in embeddings; it takes codes of
// any other for plain numbers.
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

// lookup finds the entry for a name in a list of NAME:WHAT.
func lookup(list, name string) (what string, ok bool) {
	for entry := range strings.FieldsSeq(list) {
		pattern, what, _ := strings.Cut(entry, ":")
		if matchNumbers(pattern, name) {
			return what, true
		}
	}
	return "", false
}

// matchNumbers compares names part by part; # in the pattern matches any number.
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

// names are the tensors of a checkpoint, ascending by name.
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

// prefix returns the prefix that ComfyUI strips: of its three, the one that most names
// have, or else "model." if a name has it.
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

// under counts the names with a prefix.
func (inv names) under(prefix string) int {
	from, _ := inv.search(prefix)
	to, _ := inv.search(strings.TrimSuffix(prefix, ".") + "/") // "/" is the character after "."
	return to - from
}

func (inv names) search(name string) (int, bool) {
	return slices.BinarySearchFunc(inv, name, func(n named, name string) int { return strings.Compare(n.name, name) })
}

// has reports whether there is such a name, a beginning of one, or a name with that
// many rows, see comfyKind.signs.
func (inv names) has(prefix, name string) bool {
	name, rows, counted := strings.Cut(name, "=")
	i, found := inv.search(prefix + name)
	if strings.HasSuffix(name, ".") {
		return i < len(inv) && strings.HasPrefix(inv[i].name, prefix+name)
	}
	return found && (!counted || strconv.Itoa(inv[i].rows) == rows)
}

// find returns the first row that fits; of those that say nothing else, home is the kind
// of file.
func (inv names) find(kinds []comfyKind, prefix string, home Kind) *ComfyModel {
	for i := range kinds {
		k := &kinds[i]
		if !slices.ContainsFunc(k.signs, func(sign string) bool { return inv.matches(sign, prefix) }) {
			continue
		}
		m := &ComfyModel{comfyKind: k, prefix: prefix, home: cmp.Or(k.kind, home)}
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
