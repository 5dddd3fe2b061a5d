package lora_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

const golden = "testdata/merged.safetensors"

// example is an adapter of a small model, and what ComfyUI or PEFT makes of both.
type example struct {
	name     string
	strength float64
	config   json.RawMessage // PEFT's, or null
	weights  []checkpoint.Tensor
	values   map[string][]float32
	merged   map[string][]float32
	adapter  []safetensors.Tensor
	data     map[string][]byte
}

func examples(t *testing.T) map[string]*example {
	t.Helper()
	f, err := safetensors.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]*example{}
	for _, one := range f.Header().Tensors {
		words := strings.SplitN(one.Name, "/", 3)
		e := all[words[0]]
		if e == nil {
			e = &example{name: words[0], values: map[string][]float32{}, merged: map[string][]float32{}, data: map[string][]byte{}}
			var about struct {
				Strength float64
				Config   json.RawMessage
			}
			if err := json.Unmarshal([]byte(f.Header().Metadata[e.name]), &about); err != nil {
				t.Fatalf("%s: %v", e.name, err)
			}
			e.strength, e.config, all[e.name] = about.Strength, about.Config, e
		}
		t2 := safetensors.Tensor{Name: words[2], Dtype: one.Dtype, Shape: one.Shape}
		switch words[1] {
		case "weights":
			e.weights = append(e.weights, checkpoint.Tensor{Tensor: t2})
			e.values[t2.Name] = fixture.ValuesOf(t, golden, one.Name)
		case "merged":
			e.merged[t2.Name] = fixture.ValuesOf(t, golden, one.Name)
		case "adapter":
			e.adapter = append(e.adapter, t2)
			e.data[t2.Name] = fixture.Body(t, golden, one.Name)
		}
	}
	if len(all) < 40 {
		t.Fatalf("%d examples", len(all))
	}
	return all
}

// write writes the adapter, and returns what `Lora` has for it.
func (e *example) write(t *testing.T) (text string) {
	t.Helper()
	dir := t.TempDir()
	fixture.Write(t, filepath.Join(dir, "adapter_model.safetensors"), e.adapter, e.data)
	if string(e.config) != "null" && e.config != nil {
		if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), e.config, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%s=%g", dir, e.strength)
}

// open finds what the adapter changes.
func (e *example) open(t *testing.T) (map[string]*lora.Patch, error) {
	t.Helper()
	set, err := lora.OpenAll([]string{e.write(t)})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { set.Close() })
	patches, err := set.Patches(e.weights, "")
	if err != nil {
		return nil, err
	}
	_, err = set.Unmatched(false)
	return patches, err
}

// ready reads the factors of a tensor's patch.
func (e *example) ready(p *lora.Patch, name string) (*lora.Ready, error) {
	columns := p.Columns()
	return p.Ready(func(row, n int) ([]float32, error) {
		return slices.Clone(e.values[name][row*columns : (row+n)*columns]), nil
	})
}

// TestMergedAsTheOwnersDo: a merged weight that is not what ComfyUI or PEFT computes with is
// another model than the one that was tried. Whatever area is asked for, the values are
// the same to the bit, or tiles and threads would show in the output.
func TestMergedAsTheOwnersDo(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	all := examples(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		patches, err := e.open(t)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(patches) != len(e.merged) {
			t.Errorf("%s: %d tensors are changed, want %d", name, len(patches), len(e.merged))
		}
		for tensor, want := range e.merged {
			p := patches[tensor]
			if p == nil {
				t.Errorf("%s: %s is not changed", name, tensor)
				continue
			}
			ready, err := e.ready(p, tensor)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			whole := slices.Clone(e.values[tensor])
			if err := ready.Area(whole, len(whole), tile.Line(0, len(whole))); err != nil {
				t.Fatal(err)
			}
			if d := distance(whole, want); !(d <= 1e-6) {
				t.Errorf("%s: %s differs by %g", name, tensor, d)
			}
			checkAreas(t, r, name, ready, p.Columns(), e.values[tensor], whole)
		}
	}
}

// mergedBits is the hash of all values that the examples are merged to.
const mergedBits = "4d0c26eb5efdf240712a7c6ea8bef75cd03ad314a8e4500559408df6b4882219"

// TestMergedBits: merged values have the same bits whatever the processor, since what is
// quantized from them has to.
func TestMergedBits(t *testing.T) {
	h := sha256.New()
	all := examples(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		patches, err := e.open(t)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range slices.Sorted(maps.Keys(patches)) {
			ready, err := e.ready(patches[tensor], tensor)
			x := slices.Clone(e.values[tensor])
			if err == nil {
				err = ready.Area(x, len(x), tile.Line(0, len(x)))
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range x {
				h.Write(fixture.Float32Bytes(v))
			}
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != mergedBits {
		t.Errorf("other bits: %s", got)
	}
}

// checkAreas asks for areas of all shapes, of the matrix and of others with as many values.
func checkAreas(t *testing.T, r *rand.Rand, name string, ready *lora.Ready, columns int, values, want []float32) {
	t.Helper()
	for range 30 {
		cols := columns
		if divisors := []int{1, 2, 3, 4, 6, len(want)}; r.IntN(2) == 0 {
			if cols = divisors[r.IntN(len(divisors))]; len(want)%cols > 0 {
				cols = len(want)
			}
		}
		rows := len(want) / cols
		a := tile.Area{Row: r.IntN(rows), Col: r.IntN(cols)}
		a.Rows, a.Cols = 1+r.IntN(rows-a.Row), 1+r.IntN(cols-a.Col)
		got := make([]float32, a.Values())
		for i := range got {
			got[i] = values[a.Index(i, cols)]
		}
		if err := ready.Area(got, cols, a); err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if w := want[a.Index(i, cols)]; math.Float32bits(v) != math.Float32bits(w) {
				t.Fatalf("%s: value %d of %+v of %d columns is %v, %v in the whole", name, i, a, cols, v, w)
			}
		}
	}
}

// distance is the greatest difference, relative to the greatest value.
func distance(got, want []float32) float64 {
	var d, most float64
	for i, w := range want {
		d = max(d, math.Abs(float64(got[i])-float64(w)))
		most = max(most, math.Abs(float64(w)))
	}
	return d / most
}

// TestDamagedAdapters: an adapter that is not what it should be is an error that names the
// file, never numbers that nobody meant, nor a panic. Each tensor of each example is
// taken away, given another shape or dtype, and a NaN.
func TestDamagedAdapters(t *testing.T) {
	all := examples(t)
	refused := 0
	share, want := 1, 500
	if testing.Short() {
		share, want = 7, 60
	}
	for n, name := range slices.Sorted(maps.Keys(all)) {
		if n%share > 0 {
			continue
		}
		for i := range all[name].adapter {
			for damage, do := range damages {
				e := *all[name]
				e.adapter, e.data = slices.Clone(e.adapter), maps.Clone(e.data)
				one := &e.adapter[i]
				key := one.Name
				if !do(&e, i) {
					continue
				}
				err := e.tryAll(t)
				if err != nil {
					refused++
					if !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "adapter_model.safetensors") && !strings.Contains(err.Error(), "TestDamagedAdapters") {
						t.Errorf("%s, %s of %s: %v names no file", name, damage, key, err)
					}
				} else if damage == "nan" {
					t.Errorf("%s: a NaN in %s is taken", name, key)
				}
			}
		}
	}
	if refused < want {
		t.Errorf("%d damaged adapters are refused", refused)
	}
}

// tryAll merges all that the adapter changes.
func (e *example) tryAll(t *testing.T) error {
	patches, err := e.open(t)
	if err != nil {
		return err
	}
	for name, p := range patches {
		ready, err := e.ready(p, name)
		if err != nil {
			return err
		}
		x := slices.Clone(e.values[name])
		if err := ready.Area(x, len(x), tile.Line(0, len(x))); err != nil {
			return err
		}
	}
	return nil
}

// damages change a tensor of an adapter; false where there is nothing to change.
var damages = map[string]func(e *example, i int) bool{
	"absence": func(e *example, i int) bool {
		e.adapter = slices.Delete(e.adapter, i, i+1)
		return len(e.adapter) > 0
	},
	"nan": func(e *example, i int) bool {
		data := slices.Clone(e.data[e.adapter[i].Name])
		copy(data[len(data)-4:], []byte{0, 0, 0xC0, 0x7F})
		e.data[e.adapter[i].Name] = data
		return true
	},
	"dtype": func(e *example, i int) bool {
		e.adapter[i].Dtype = safetensors.I32
		return true
	},
	"turned": func(e *example, i int) bool {
		shape := slices.Clone(e.adapter[i].Shape)
		slices.Reverse(shape)
		e.adapter[i].Shape = shape
		return len(shape) > 1
	},
	"flat": func(e *example, i int) bool {
		n := 1
		for _, d := range e.adapter[i].Shape {
			n *= d
		}
		e.adapter[i].Shape = []int{n}
		return true
	},
	"deep": func(e *example, i int) bool {
		e.adapter[i].Shape = append([]int{1}, e.adapter[i].Shape...)
		return true
	},
	"empty": func(e *example, i int) bool {
		e.adapter[i].Shape, e.data[e.adapter[i].Name] = []int{0, 4}, nil
		return true
	},
	"name": func(e *example, i int) bool {
		name := strings.Replace(e.adapter[i].Name, "layer.", "leyer.", 1)
		data := e.data[e.adapter[i].Name]
		e.adapter[i].Name = name + "x"
		e.data[name+"x"] = data
		return true
	},
	"cut": func(e *example, i int) bool {
		shape := slices.Clone(e.adapter[i].Shape)
		if len(shape) == 0 || shape[0] < 2 {
			return false
		}
		data := e.data[e.adapter[i].Name]
		data = data[:len(data)/shape[0]*(shape[0]-1)]
		shape[0]--
		e.adapter[i].Shape, e.data[e.adapter[i].Name] = shape, data
		return true
	},
}
