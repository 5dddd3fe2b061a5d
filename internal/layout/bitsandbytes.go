package layout

import (
	"encoding/json"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
)

const bitsandbytesName = "bitsandbytes"

// stateEnds end the names of the JSON that a 4-bit weight of bitsandbytes has beside it.
var stateEnds = []string{".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4"}

var (
	bnbLevels = &publication{
		Layout: &Layout{Name: "bitsandbytes-4bit", suffixes: map[tile.Role]string{
			tile.Weight: ".weight", tile.Scale: ".weight.absmax", tile.Codebook: ".weight.quant_map",
			tile.Scale2: ".weight.nested_absmax", tile.NestedCodebook: ".weight.nested_quant_map",
		}},
		is: bitsandbytesName, tells: []tile.Role{tile.Codebook, tile.Scale}, with: stateEnds,
		methods: []string{bitsandbytesName}, describe: describeState, open: openLevels,
	}
	bnbRows = &publication{
		Layout: &Layout{Name: "bitsandbytes-int8", suffixes: map[tile.Role]string{tile.Weight: ".weight", tile.Scale: ".SCB"}},
		is:     bitsandbytesName, dtypes: i8, tells: []tile.Role{tile.Scale}, with: []string{weightFormat},
		methods: []string{bitsandbytesName}, describe: describeRows,
		open: func(_ *Model, t published.Tensors, _ pyjson.Object) (published.Weight, string, pyjson.Object, error) {
			w, err := published.NewRows(t)
			if err != nil {
				return nil, "", nil, err
			}
			return w, "int8", nil, nil
		},
	}
)

// weightFormat ends the name of a number that says how codes lie: 0 is by rows.
const weightFormat = ".weight_format"

func describeRows(m *Model, name string) (pyjson.Object, error) {
	text, err := m.small(name + weightFormat)
	if err != nil {
		return nil, err
	}
	for _, b := range text {
		if b != 0 {
			return nil, fmt.Errorf("its weight_format is %d, and 0, by rows, is read", b)
		}
	}
	return nil, nil
}

// small returns the content of a small tensor, nil where there is none.
func (m *Model) small(name string) ([]byte, error) {
	t, ok := m.Checkpoint.Lookup(name)
	if !ok {
		return nil, nil
	}
	if t.Size > maxMetadata {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", name, t.Size, maxMetadata)
	}
	text := make([]byte, t.Size)
	return text, m.Checkpoint.ReadSection(t, text, 0)
}

// describeState is the JSON of a layer.
func describeState(m *Model, name string) (pyjson.Object, error) {
	for _, end := range stateEnds {
		text, err := m.small(name + end)
		if err != nil {
			return nil, err
		}
		if text == nil {
			continue
		}
		o, err := pyjson.ParseObject(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name+end, err)
		}
		return o, nil
	}
	return nil, fmt.Errorf("its %s is missing, which says its shape", stateEnds[0][1:])
}

func openLevels(m *Model, t published.Tensors, o pyjson.Object) (published.Weight, string, pyjson.Object, error) {
	kind, _ := o.Get("quant_type")
	if err := wholeOnes("its quant_state", o, "blocksize", "nested_blocksize"); err != nil {
		return nil, "", nil, err
	}
	s := published.State{Type: fmt.Sprint(kind), Block: number(o, "blocksize"), NestedBlock: number(o, "nested_blocksize")}
	shape, _ := o.Get("shape")
	sides, _ := shape.([]any)
	for _, n := range sides {
		s.Shape = append(s.Shape, positive(n))
	}
	_, s.Nested = t[tile.Scale2]
	offset, _ := o.Get("nested_offset")
	if n, ok := offset.(json.Number); ok {
		var err error
		s.NestedOffset, err = n.Float64()
		s.NestedKnown = err == nil
	}
	w, err := published.NewLevels(t, s)
	if err != nil {
		return nil, "", nil, err
	}
	options := pyjson.Object{{Key: "blocksize", Value: w.Block()}, {Key: "nested", Value: s.Nested}}
	if dtype, _ := o.Get("dtype"); dtype != nil {
		options = append(options, pyjson.Member{Key: "dtype", Value: dtype})
	}
	if said, _ := m.config().Get("bnb_4bit_quant_type"); said != nil && said != kind {
		return nil, "", nil, fmt.Errorf("its config says bnb_4bit_quant_type %v, and its quant_state says %v", said, kind)
	}
	return w, s.Type, options, nil
}
