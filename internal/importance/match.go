package importance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Layer is one of a model's, by the names that it may have: its own first, then those
// in the model as it is loaded, and those of the layers that became it, which have the
// same inputs.
type Layer struct{ Names []string }

// Match is the layers of a model that have moments.
type Match struct {
	file  *File
	found map[string]place // by the layers' own names
}

// place is where moments lie.
type place struct {
	entry  int
	expert int64
}

// difference is by what names of layers and of moments differ.
type difference struct{ layer, file string }

func (d difference) String() string {
	return fmt.Sprintf("%q in place of %q", d.layer, d.file)
}

// found are the places of layers' moments, by the layers.
type found map[int]place

// wrappers are beginnings that programs put before all names of a model.
var wrappers = []string{"model.", "transformer.", "diffusion_model.", "model.diffusion_model.", "unet.", "text_encoder.", "text_model.", "module.", "_orig_mod."}

// Match finds the moments of a model's layers. Names are taken as they are; where most
// differ by one beginning, such as model.diffusion_model., that is taken off. folder is
// the model's in a pipeline, and others are those of the other models.
func (f *File) Match(folder string, others []string, layers []Layer) (*Match, error) {
	s := &search{File: f, layers: layers, others: others, by: map[difference]found{}}
	exact := s.exact(folder)
	if f.imatrix {
		s.translated()
	} else {
		s.moved()
	}
	best, err := s.most(len(exact))
	if err != nil {
		return nil, err
	}
	m := &Match{file: f, found: map[string]place{}}
	for _, some := range []found{best, exact} { // as they are goes before
		for i, at := range some {
			m.found[layers[i].Names[0]] = at
		}
	}
	for _, at := range m.found {
		f.matched[at.entry] = true
	}
	return m, nil
}

// search is a match under way.
type search struct {
	*File
	layers []Layer
	others []string
	by     map[difference]found
}

// of returns the entry of that name, unless it is one of another model's.
func (s *search) of(name string) (int, bool) {
	for _, folder := range s.others {
		if strings.HasPrefix(name, folder+".") {
			return 0, false
		}
	}
	i, ok := s.byName[name]
	return i, ok
}

// exact are the layers whose names are those of the file, perhaps after the folder's.
func (s *search) exact(folder string) found {
	all := found{}
	for i, l := range s.layers {
		for _, name := range l.Names {
			entry, ok := s.of(name)
			if folder != "" {
				if in, is := s.of(folder + "." + name); is {
					entry, ok = in, true
				}
			}
			if !ok {
				continue
			}
			s.matched[entry] = true // all of a layer that several become
			if _, before := all[i]; !before {
				all[i] = place{entry: entry}
			}
		}
	}
	return all
}

// take notes that a layer has moments under some difference.
func (s *search) take(d difference, layer int, at place) {
	if s.by[d] == nil {
		s.by[d] = found{}
	}
	if _, before := s.by[d][layer]; !before {
		s.by[d][layer] = at
	}
}

// moved are the layers whose names differ by a beginning.
func (s *search) moved() {
	layers := map[string]int{}
	for i, l := range s.layers {
		for _, name := range l.Names {
			layers[name] = i
			for at := range ends(name) {
				for _, wrapper := range append([]string{""}, wrappers...) {
					if entry, ok := s.of(wrapper + name[at:]); ok && (at > 0 || wrapper != "") && wrapper != name[:at] {
						s.take(difference{name[:at], wrapper}, i, place{entry: entry})
					}
				}
			}
		}
	}
	for entry, e := range s.entries {
		for at := range ends(e.name) {
			if _, own := s.of(e.name); at == 0 || !own {
				continue
			}
			if layer, ok := layers[e.name[at:]]; ok {
				s.take(difference{"", e.name[:at]}, layer, place{entry: entry})
			}
		}
	}
}

// ends yields where parts of a name begin.
func ends(name string) func(yield func(at int) bool) {
	return func(yield func(at int) bool) {
		for at := 0; yield(at); {
			dot := strings.IndexByte(name[at:], '.')
			if dot < 0 {
				return
			}
			at += dot + 1
		}
	}
}

// translated are the layers that llama.cpp calls otherwise.
func (s *search) translated() {
	for i, l := range s.layers {
		for _, name := range l.Names {
			for _, f := range families {
				for _, row := range f.rows {
					if beginning, theirs, expert, ok := row.translate(name); ok {
						if entry, ok := s.of(theirs); ok {
							s.take(difference{beginning, f.name}, i, place{entry, expert})
						}
					}
				}
			}
		}
	}
}

// most returns what the difference finds that finds most, if that is more than least.
// Two that find as much, and not the same, are an error.
func (s *search) most(least int) (found, error) {
	var best difference
	var again *difference
	for _, d := range slices.SortedFunc(maps.Keys(s.by), func(a, b difference) int {
		return strings.Compare(a.layer+"\x00"+a.file, b.layer+"\x00"+b.file)
	}) {
		switch n := len(s.by[d]); {
		case n <= least || n < len(s.by[best]):
		case n == len(s.by[best]) && !maps.Equal(s.by[d], s.by[best]):
			again = &d
		case n > len(s.by[best]):
			best, again = d, nil
		}
	}
	if again != nil {
		one, other := s.example(best), s.example(*again)
		return nil, s.wrap(fmt.Errorf("tensor %s could be for layer %s, and %s for layer %s: name the moments as the layers are called", one[0], one[1], other[0], other[1]))
	}
	return s.by[best], nil
}

// example returns a tensor and the layer that it would be for.
func (s *search) example(d difference) [2]string {
	layer := slices.Min(slices.Collect(maps.Keys(s.by[d])))
	return [2]string{s.entries[s.by[d][layer].entry].tensor, s.layers[layer].Names[0]}
}

// Has reports whether a layer has moments, or an expert of it.
func (m *Match) Has(layer string) bool {
	if m == nil {
		return false
	}
	_, ok := m.found[layer]
	return ok
}

// Weights returns how much errors count in each of a layer's columns: the moments of
// its inputs, their mean being 1. nil is for a layer without moments, and for one whose
// inputs were never other than zero.
func (m *Match) Weights(layer string, columns int) ([]float32, error) {
	if !m.Has(layer) {
		return nil, nil
	}
	at := m.found[layer]
	moments, err := m.file.read(&m.file.entries[at.entry], at.expert, layer, columns)
	if err != nil || moments == nil {
		return nil, err
	}
	return m.file.shared(weigh(moments)), nil
}

// BankWeights are [Match.Weights] of a layer of several experts in one tensor: of each of
// them, one after the other, where the file has moments of each, or the same for all. An
// expert that no input was ever given has weights of one.
func (m *Match) BankWeights(layer string, experts, columns int) ([]float32, error) {
	if !m.Has(layer) {
		return nil, nil
	}
	e := &m.file.entries[m.found[layer].entry]
	if e.values == int64(columns) {
		return m.Weights(layer, columns)
	}
	if e.values != int64(experts)*int64(columns) || e.shares > 1 && e.shares != int64(experts) {
		return nil, m.file.wrap(fmt.Errorf("tensor %s has %d values, and layer %s has %d experts of %d inputs: moments of this very model are needed", e.tensor, e.values, layer, experts, columns))
	}
	all := make([]float32, 0, experts*columns)
	for i := range experts {
		moments, err := m.file.read(e, int64(i), layer, columns)
		if err != nil {
			return nil, err
		}
		weights := weigh(moments)
		if weights == nil {
			weights = slices.Repeat([]float32{1}, columns)
		}
		all = append(all, weights...)
	}
	return m.file.shared(all), nil
}
