// Package lora reads adapters of models and adds what they change to weights, an area at
// a time: LoRA, LoKr, LoHa, DoRA and whole differences, under the names that Kohya's
// scripts, PEFT, diffusers and ComfyUI give them. keys.go has the ends of names that tell
// what a tensor is, names.go which weight a name means, delta.go the arithmetic.
package lora

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// File is an adapter and the strength with which it is merged. Its factors are read when
// a weight is reached.
type File struct {
	Path     string
	Strength float64

	source  *checkpoint.Checkpoint
	config  *config
	modules []*module // by their names
	unread  []string  // those of which it is not known
	notes   []string
}

// module is what a file has for one layer, or for one tensor.
type module struct {
	name    string // as the file has it
	parts   map[part]checkpoint.Tensor
	alpha   *float64
	matched bool // by some model
}

// Parse splits FILE=STRENGTH, in which the strength may be left out. What follows the
// last equals sign is the strength if it is a number.
func Parse(text string) (path string, strength float64, err error) {
	at := strings.LastIndexByte(text, '=')
	if at < 0 {
		return text, 1, nil
	}
	strength, err = strconv.ParseFloat(text[at+1:], 64)
	switch {
	case err != nil && strings.TrimSpace(text[at+1:]) == "":
		return "", 0, usage.Errorf("`Lora` %s: no strength follows the equals sign", text)
	case err != nil: // of a file's name
		return text, 1, nil
	case math.IsNaN(strength) || math.IsInf(strength, 0):
		return "", 0, usage.Errorf("`Lora` %s: the strength has to be a finite number", text)
	}
	return text[:at], strength, nil
}

// files are what an adapter is called in a folder of its own.
var files = []string{"adapter_model.safetensors", "pytorch_lora_weights.safetensors"}

// Open reads what an adapter has, but none of its factors. text is FILE or FILE=STRENGTH;
// FILE may be a folder that PEFT or diffusers has written.
func Open(text string) (*File, error) {
	path, strength, err := Parse(text)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, Strength: strength}
	file, err := located(path)
	if err != nil {
		return nil, err
	}
	if f.source, err = checkpoint.Open(file); err != nil {
		return nil, fmt.Errorf("`Lora`: %w", err)
	}
	if err := f.read(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// located is the file of an adapter.
func located(path string) (source.Source, error) {
	s := source.Path(path)
	info, err := s.Stat(path)
	if err != nil || !info.IsDir() {
		return s, nil // opening it says why
	}
	for _, name := range files {
		if one := s.In(name); isFile(one) {
			return one, nil
		}
	}
	return s, usage.Errorf("`Lora` %s is a folder without %s: name the file", path, strings.Join(files, " and without "))
}

func isFile(s source.Source) bool {
	info, err := s.Stat(s.Path)
	return err == nil && !info.IsDir()
}

// Close closes the file.
func (f *File) Close() error { return f.source.Close() }

// read sorts the tensors by the modules that they are of.
func (f *File) read() (err error) {
	if f.config, err = f.readConfig(); err != nil {
		return err
	}
	byName := map[string]*module{}
	for _, t := range f.source.Tensors {
		name, p, ok := splitKey(t.Name)
		if !ok {
			f.unread = append(f.unread, t.Name)
			continue
		}
		m := byName[name]
		if m == nil {
			m = &module{name: name, parts: map[part]checkpoint.Tensor{}}
			byName[name], f.modules = m, append(f.modules, m)
		}
		if old, again := m.parts[p]; again {
			return usage.SourceErrorf("%s: tensors %s and %s are the same part of %s", f.Path, old.Name, t.Name, name)
		}
		m.parts[p] = t
	}
	slices.SortFunc(f.modules, func(a, b *module) int { return strings.Compare(a.name, b.name) })
	f.modules = slices.DeleteFunc(f.modules, func(m *module) bool {
		if m.changes() {
			return false
		}
		for _, t := range m.parts { // beside those of a kind that is not read
			f.unread = append(f.unread, t.Name)
		}
		return true
	})
	slices.Sort(f.unread)
	if len(f.modules) == 0 {
		return usage.SourceErrorf("%s: has no tensor of an adapter (%s)%s", f.Path, f.some(), isNoAdapter)
	}
	for _, m := range f.modules {
		if err := f.check(m); err != nil {
			return err
		}
	}
	f.noteConfig()
	return nil
}

// changes reports whether there is a change of a weight or a bias.
func (m *module) changes() bool {
	_, biased := m.parts[biasDiff]
	_, reshapes := m.parts[reshape]
	return biased || reshapes || m.kind() != nil
}

const isNoAdapter = ": LoRA, LoKr, LoHa, DoRA and whole differences are read"

// some names a tensor or two.
func (f *File) some() string {
	if len(f.unread) == 0 {
		return "it is empty"
	}
	if kind := kindNotRead(f.unread[0]); kind != "" {
		return fmt.Sprintf("%s is of %s", f.unread[0], kind)
	}
	return "the first is " + f.unread[0]
}

// check refuses a module that lacks a part, has two kinds of change, or has one whose
// numbers are none.
func (f *File) check(m *module) error {
	if t, ok := m.parts[reshape]; ok {
		return usage.SourceErrorf("%s: tensor %s gives the weight another shape, which no merge can", f.Path, t.Name)
	}
	var kinds []string
	for i := range kindsOfChange {
		k := &kindsOfChange[i]
		there, lacks := k.of(m)
		switch {
		case there == "":
			continue
		case lacks != "":
			return usage.SourceErrorf("%s: %s has %s and no %s: the file is cut short, or of another kind", f.Path, m.name, there, lacks)
		}
		kinds = append(kinds, k.name)
	}
	if len(kinds) > 1 {
		return usage.SourceErrorf("%s: %s is changed in two ways, by %s and by %s", f.Path, m.name, kinds[0], kinds[1])
	}
	if t, ok := m.parts[alpha]; ok {
		v, err := f.scalar(t)
		if err != nil {
			return err
		}
		m.alpha = &v
	}
	return f.agrees(m)
}

// anyPart names the tensor whose name is first.
func (m *module) anyPart() string {
	name := ""
	for _, t := range m.parts {
		if name == "" || t.Name < name {
			name = t.Name
		}
	}
	return name
}

// scalar reads a tensor of one value.
func (f *File) scalar(t checkpoint.Tensor) (float64, error) {
	if t.Numel() != 1 {
		return 0, usage.SourceErrorf("%s: tensor %s has shape %v, not one value", f.Path, t.Name, t.Shape)
	}
	values, err := f.values(t)
	if err != nil {
		return 0, err
	}
	return float64(values[0]), nil
}

// values reads a tensor, all of whose values must be finite.
func (f *File) values(t checkpoint.Tensor) ([]float32, error) {
	values := make([]float32, t.Numel())
	return values, f.section(t, values, 0)
}

// section reads the values from one on.
func (f *File) section(t checkpoint.Tensor, dst []float32, from int) error {
	if err := f.checkDtype(t); err != nil {
		return err
	}
	width := t.Dtype.Bits() / 8
	raw := make([]byte, len(dst)*width)
	if err := f.source.ReadSection(t, raw, int64(from)*int64(width)); err != nil {
		return err
	}
	widen(dst, raw, t.Dtype)
	for i, v := range dst {
		if !floats.Finite(v) {
			return usage.SourceErrorf("%s: tensor %s: value %d is %v: the adapter is broken, and so would be the model", f.Path, t.Name, from+i, v)
		}
	}
	return nil
}

func (f *File) checkDtype(t checkpoint.Tensor) error {
	switch t.Dtype {
	case safetensors.F64, safetensors.F32, safetensors.F16, safetensors.BF16, safetensors.F8_E4M3, safetensors.F8_E5M2, safetensors.I64, safetensors.I32:
		return nil
	}
	return usage.SourceErrorf("%s: tensor %s is %s: want F32, F16, BF16, F8_E4M3 or F8_E5M2", f.Path, t.Name, t.Dtype)
}

// Notes are what should be said of the file.
func (f *File) Notes() []string { return f.notes }
