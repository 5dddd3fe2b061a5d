package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bankSettings are ways to store experts: each format that holds them, plain and searched,
// with every granularity.
func bankSettings() (all []Settings) {
	for _, f := range Formats() {
		if f.Banks == "" {
			continue
		}
		scales := []string{""}
		if f == int8Tensorwise {
			scales = []string{"row", "tensor"}
		}
		for _, scale := range scales {
			for _, search := range []bool{false, true} {
				s := Default()
				s.Dtype, s.Scale, s.Search, s.FullPrecisionMatmul = f.Name, scale, search, search
				if f == convrotW4A4 {
					s.ConvRotGroupSize = 16
				}
				all = append(all, s)
			}
		}
	}
	return all
}

func bankOf(t *testing.T, src Source, s Settings) (*Format, *Bank, pyjson.Object) {
	t.Helper()
	f, err := ByName(s.Dtype)
	if err != nil {
		t.Fatal(err)
	}
	c, o, err := f.Make(src, s)
	if err != nil {
		t.Fatalf("%s: %v", s.Dtype, err)
	}
	return f, Matrices(c), o
}

func randomWeights(n int) []float32 {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64()) * float32(1+i*5/n)
	}
	return w
}

// TestBanksAreMatrices: ComfyUI takes experts apart and decodes each by itself. So the
// bytes must be those that each has as a layer of its own, and what they restore to.
func TestBanksAreMatrices(t *testing.T) {
	for _, s := range bankSettings() {
		for _, shape := range [][]int{{3, 24, 64}, {2, 144, 128}, {3, 1, 64}, {1, 130, 192}} {
			apart := randomWeights(shape[0] * shape[2])
			for i := range apart {
				apart[i] *= apart[i]
			}
			for _, moments := range [][]float32{nil, apart[:shape[2]], apart} {
				src := Source{Name: "x", Shape: shape, Dtype: safetensors.BF16, Moments: moments}
				f, b, o := bankOf(t, src, s)
				if n, err := intOption(parsed(t, o), numExperts, 0); err != nil || n != shape[0] {
					t.Fatalf("%s: %s", s.Dtype, pyjson.Dump(o))
				}
				w := randomWeights(tile.Numel(shape))
				got, err := EncodeAll(b, w)
				if err != nil {
					t.Fatal(err)
				}
				restored, err := DecodeAll(b, got, safetensors.BF16)
				if err != nil {
					t.Fatal(err)
				}
				size := shape[1] * shape[2]
				for i := range shape[0] {
					own := src
					own.Shape = shape[1:]
					if len(moments) == len(apart) {
						own.Moments = moments[i*shape[2] : (i+1)*shape[2]]
					}
					one, _, err := f.Make(own, s)
					if err != nil {
						t.Fatal(err)
					}
					want, err := EncodeAll(one, w[i*size:(i+1)*size])
					if err != nil {
						t.Fatal(err)
					}
					for k := range want {
						n := len(want[k])
						if !bytes.Equal(got[k][i*n:(i+1)*n], want[k]) {
							t.Errorf("%s %v: %s of expert %d differs from that of a layer", s.Dtype, shape, b.Tensors()[k].Role, i)
						}
					}
					values, err := DecodeAll(one, want, safetensors.BF16)
					if err != nil || !slices.Equal(values, restored[i*size:(i+1)*size]) {
						t.Errorf("%s %v: expert %d is restored otherwise: %v", s.Dtype, shape, i, err)
					}
				}
			}
		}
	}
}

// TestBanksInAreas: an area may lie in several experts, whole or in part.
func TestBanksInAreas(t *testing.T) {
	for _, s := range bankSettings() {
		shape := []int{5, 40, 64}
		_, b, _ := bankOf(t, Source{Shape: shape, Dtype: safetensors.F32}, s)
		stored, err := EncodeAll(b, randomWeights(tile.Numel(shape)))
		if err != nil {
			t.Fatal(err)
		}
		all, err := DecodeAll(b, stored, safetensors.F32)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []tile.Area{{Row: 39, Rows: 2, Cols: 64}, {Rows: 200, Cols: 64}, {Row: 17, Rows: 130, Cols: 64}, {Row: 79, Rows: 1, Cols: 64}} {
			src := make([][]byte, len(stored))
			for i := range src {
				for _, span := range b.Needed(i, a) {
					src[i] = append(src[i], span.Take(stored[i])...)
				}
			}
			got := make([]float32, a.Values())
			b.Decode(got, src, a, safetensors.F32, new(tile.Scratch))
			if !slices.Equal(got, all[a.Row*64:(a.Row+a.Rows)*64]) {
				t.Errorf("%s: area %v", s.Dtype, a)
			}
		}
	}
}

// storedBank is what a reader finds of experts.
func storedBank(b *Bank, o pyjson.Object) *Stored {
	s := &Stored{Metadata: o, Tensors: map[tile.Role]tile.Tensor{}, Hint: b.Shape()[:2]}
	for _, t := range b.Tensors() {
		s.Tensors[t.Role] = t
	}
	return s
}

// parsed is JSON as a reader has it.
func parsed(t *testing.T, o pyjson.Object) pyjson.Object {
	t.Helper()
	o, err := pyjson.ParseObject([]byte(pyjson.Dump(o)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestBanksAreOpened: as they are written, with or without their number, which ComfyUI
// does not read; and with one scale for all where a format's is a scalar.
func TestBanksAreOpened(t *testing.T) {
	for _, s := range bankSettings() {
		f, b, o := bankOf(t, Source{Shape: []int{3, 24, 64}, Dtype: safetensors.BF16}, s)
		stored, err := EncodeAll(b, randomWeights(3*24*64))
		if err != nil {
			t.Fatal(err)
		}
		want, _ := DecodeAll(b, stored, safetensors.F32)
		o = parsed(t, o)
		for _, metadata := range []pyjson.Object{o, o.Delete(numExperts)} {
			c, err := f.OpenAs(storedBank(b, metadata))
			if err != nil {
				t.Errorf("%s: %v", s.Dtype, err)
				continue
			}
			if got, err := DecodeAll(c, stored, safetensors.F32); err != nil || !slices.Equal(got, want) || !slices.Equal(c.Shape(), b.Shape()) {
				t.Errorf("%s: opened as %v, %v", s.Dtype, c.Shape(), err)
			}
		}
		for i, one := range b.Tensors() {
			if !slices.Equal(one.Shape, []int{3}) {
				continue
			}
			l := storedBank(b, o)
			one.Shape = nil
			l.Tensors[one.Role] = one
			shared := slices.Clone(stored)
			shared[i] = shared[i][:4]
			c, err := f.OpenAs(l)
			if err != nil {
				t.Errorf("%s: a %s for all: %v", s.Dtype, one.Role, err)
				continue
			}
			got, err := DecodeAll(c, shared, safetensors.F32)
			if err != nil || !slices.Equal(got[:24*64], want[:24*64]) || slices.Equal(got, want) {
				t.Errorf("%s: a %s for all is not applied: %v", s.Dtype, one.Role, err)
			}
		}
	}
}

// TestBanksThatContradict: what cannot be is refused, in words that say what.
func TestBanksThatContradict(t *testing.T) {
	for _, s := range bankSettings() {
		f, b, o := bankOf(t, Source{Shape: []int{3, 24, 64}, Dtype: safetensors.BF16}, s)
		for name, c := range map[string]struct {
			damage func(l *Stored)
			want   string
		}{
			"another number":     {func(l *Stored) { l.Metadata = l.Metadata.Set(numExperts, 4) }, "tells of 4 experts (num_experts), and its weight has 3"},
			"no number":          {func(l *Stored) { l.Metadata = l.Metadata.Set(numExperts, "many") }, "num_experts"},
			"a matrix":           {func(l *Stored) { reshape(l, tile.Weight, []int{72, 64}) }, "no matrices in one tensor"},
			"no experts":         {func(l *Stored) { reshape(l, tile.Weight, []int{0, 24, 64}) }, "no matrices in one tensor"},
			"scales of fewer":    {func(l *Stored) { reshape(l, tile.Scale, append([]int{2}, l.Tensors[tile.Scale].Shape[1:]...)) }, "and there are 3 experts"},
			"scales of a matrix": {func(l *Stored) { reshape(l, tile.Scale, []int{3, 5, 7}) }, "of each of 3 experts"},
			"no scale":           {func(l *Stored) { delete(l.Tensors, tile.Scale) }, "of each of 3 experts, its scale is missing"},
			"one more": {func(l *Stored) {
				l.Tensors[tile.Zeros] = tile.Tensor{Role: tile.Zeros, Dtype: safetensors.F32, Shape: []int{3}}
			}, "has a zeros that its format does not"},
		} {
			l := storedBank(b, o)
			c.damage(l)
			l.Metadata = parsed(t, l.Metadata)
			if _, err := f.OpenAs(l); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v, want %q", s.Dtype, name, err, c.want)
			}
		}
	}
	rotated := storedBank(newBank([]Codec{mustMake(t, int8Tensorwise, []int{24, 64})}, 3), pyjson.Object{{Key: "format", Value: "int8_tensorwise"}, {Key: "convrot", Value: true}})
	rotated.Metadata = parsed(t, rotated.Metadata)
	if _, err := int8Tensorwise.OpenAs(rotated); err == nil || !strings.Contains(err.Error(), "does not rotate back") {
		t.Errorf("rotated experts: %v", err)
	}
}

func reshape(l *Stored, role tile.Role, shape []int) {
	one := l.Tensors[role]
	one.Shape = shape
	l.Tensors[role] = one
}

func mustMake(t *testing.T, f *Format, shape []int) Codec {
	t.Helper()
	c, _, err := f.Make(Source{Shape: shape, Dtype: safetensors.BF16}, Default())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFormatsWithoutBanks keep experts as they are, and say which hold them.
func TestFormatsWithoutBanks(t *testing.T) {
	for _, f := range Formats() {
		s := Default()
		s.Dtype = f.Name
		if f == SDNQ() {
			s.Dtype = "int8"
		}
		if f.Banks != "" || f.ReadOnly != "" {
			continue
		}
		if _, _, err := f.make(Source{Shape: []int{64, 64}, Dtype: safetensors.BF16}, s); err != nil && f != SDNQ() {
			continue // its blocks are larger
		}
		_, _, err := f.Make(Source{Shape: []int{3, 64, 64}, Dtype: safetensors.BF16}, s)
		if err == nil || !strings.Contains(err.Error(), "holds no experts in one tensor: int8_tensorwise, ") {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

// TestBanksOfComfyUI: files that ComfyUI's class for experts itself saved restore to the
// values that it restores, to the bit (where rotated, as near as sums in another order).
func TestBanksOfComfyUI(t *testing.T) {
	want := map[string]string{}
	for _, row := range golden.Lines(t, "experts/restored.tsv") {
		want[row[0]] = row[1]
	}
	if len(want) < 7 {
		t.Fatalf("%d goldens", len(want))
	}
	for name, hash := range want {
		file, err := safetensors.Open(golden.Path(t, "experts/"+name+".safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		l := &Stored{Tensors: map[tile.Role]tile.Tensor{}, Hint: []int{3, 24}}
		data := map[tile.Role][]byte{}
		for _, one := range file.Header().Tensors {
			raw := make([]byte, one.Size)
			if err := file.ReadSection(one, raw, 0); err != nil {
				t.Fatal(err)
			}
			switch end := one.Name[len("mlp.experts.up."):]; end {
			case "bias":
			case "comfy_quant":
				if l.Metadata, err = pyjson.ParseObject(raw); err != nil {
					t.Fatal(err)
				}
			default:
				role := map[string]tile.Role{"weight": tile.Weight, "weight_scale": tile.Scale, "weight_scale_2": tile.Scale2}[end]
				l.Tensors[role], data[role] = tile.Tensor{Role: role, Dtype: one.Dtype, Shape: one.Shape}, raw
			}
		}
		format, _ := l.Metadata.Get("format")
		f, err := ByName(fmt.Sprint(format))
		if err != nil {
			t.Fatal(err)
		}
		c, err := f.OpenAs(l)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var stored [][]byte
		for _, one := range c.Tensors() {
			stored = append(stored, data[one.Role])
		}
		values, err := DecodeAll(c, stored, safetensors.F32)
		if err != nil {
			t.Fatal(err)
		}
		if got := golden.Describe(tile.Tensor{Dtype: safetensors.F32, Shape: c.Shape()}, golden.BytesOf(values)); got != hash && f != convrotW4A4 {
			t.Errorf("%s restores to %s, ComfyUI to %s", name, got, hash)
		}
	}
}
