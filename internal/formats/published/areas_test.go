package published

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// random fills a tensor with codes, or with scales that are numbers.
func random(r *rand.Rand, t tile.Tensor) []byte {
	size, _ := safetensors.ByteSize(t.Dtype, t.Shape)
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.Uint32())
		if t.Role != tile.Weight && t.Dtype != safetensors.I32 && (t.Dtype.Bits() == 8 || i%(t.Dtype.Bits()/8) == t.Dtype.Bits()/8-1) {
			data[i] = data[i]&0xBF | 0x20 // no exponent is the highest
		}
	}
	return data
}

func tensor(role tile.Role, d safetensors.Dtype, shape ...int) tile.Tensor {
	return tile.Tensor{Role: role, Dtype: d, Shape: shape}
}

func of(tensors ...tile.Tensor) Tensors {
	all := Tensors{}
	for _, t := range tensors {
		all[t.Role] = t
	}
	return all
}

// weights are some of each kind.
func weights(t *testing.T) map[string]Weight {
	t.Helper()
	all := map[string]Weight{}
	add := func(name string, w Weight, err error) {
		if err != nil {
			t.Fatal(name, err)
		}
		all[name] = w
	}
	const w, s, z, g = tile.Weight, tile.Scale, tile.Zeros, tile.GroupOfColumn
	i32, f16, f32, u8 := safetensors.I32, safetensors.F16, safetensors.F32, safetensors.U8
	for _, bits := range gptqBits {
		one, err := NewGPTQ(of(tensor(w, i32, 96*bits/32, 40), tensor(s, f16, 3, 40), tensor(z, i32, 3, (40*bits+31)/32)), GPTQ{Bits: bits, Group: 32, ZeroLess: true})
		add("gptq"+string(rune('0'+bits)), one, err)
	}
	one, err := NewGPTQ(of(tensor(w, i32, 12, 24), tensor(s, f32, 3, 24), tensor(z, i32, 3, 3), tensor(g, i32, 90)), GPTQ{Bits: 4, Group: 32})
	add("gptq, words not full", one, err)
	one, err = NewGPTQ(of(tensor(w, i32, 12, 24), tensor(s, f16, 3, 24), tensor(z, i32, 3, 3), tensor(g, i32, 96)), GPTQ{Bits: 4, Group: 32, Ordered: new(bool)})
	add("gptq, groups in order", one, err)
	one, err = NewAWQ(of(tensor(w, i32, 96, 5), tensor(s, f16, 3, 40), tensor(z, i32, 3, 5)), AWQ{Group: 32})
	add("awq", one, err)
	for _, bits := range []int{1, 3, 4, 5, 8} {
		one, err := NewPacked(of(tensor(w, i32, 24, (100*bits+31)/32), tensor(s, f32, 24, 4), tensor(z, i32, (24*bits+31)/32, 4)), Compressed{Bits: bits, Group: 25, Shape: []int{24, 100}})
		add("packed"+string(rune('0'+bits)), one, err)
	}
	for _, bits := range []int{3, 5, 6, 7} {
		per := 32 / bits
		one, err := NewPacked(of(tensor(w, i32, 24, (200+per-1)/per), tensor(s, f32, 24, 8), tensor(z, i32, (24+per-1)/per, 8)), Compressed{Bits: bits, Group: 25, Shape: []int{24, 200}})
		add("spaced"+string(rune('0'+bits)), one, err)
	}
	one, err = NewBytes(of(tensor(w, safetensors.I8, 24, 96), tensor(s, f16, 24, 3), tensor(z, safetensors.I8, 24, 3)), Compressed{Group: 32})
	add("bytes", one, err)
	one, err = NewBytes(of(tensor(w, safetensors.I8, 24, 96), tensor(s, f32, 1)), Compressed{})
	add("bytes with one scale", one, err)
	fours, err := NewNVFP4(of(tensor(w, u8, 24, 48), tensor(s, safetensors.F8_E4M3, 24, 6), tensor(tile.Scale2, f32)), true)
	add("nvfp4", fours, err)
	fours, err = NewMXFP4(of(tensor(w, u8, 24, 48), tensor(s, u8, 24, 3)))
	add("mxfp4", fours, err)
	fours, err = NewMXFP4Experts(of(tensor(w, u8, 3, 20, 3, 16), tensor(s, u8, 3, 20, 3)))
	add("experts", fours, err)
	rows, err := NewRows(of(tensor(w, safetensors.I8, 24, 96), tensor(s, f32, 24)))
	add("rows", rows, err)
	levels, err := NewLevels(of(tensor(w, u8, 600, 1), tensor(s, u8, 19), tensor(tile.Codebook, f32, 16), tensor(tile.Scale2, f32, 1), tensor(tile.NestedCodebook, f32, 256)),
		State{Type: "nf4", Shape: []int{24, 50}, Block: 64, Nested: true, NestedKnown: true, NestedBlock: 256, NestedOffset: 0.5})
	add("levels", levels, err)
	return all
}

// restored decodes an area from whole tensors.
func restored(w Weight, stored [][]byte, a tile.Area) []float32 {
	src := make([][]byte, len(stored))
	for i := range src {
		for _, span := range w.Needed(i, a) {
			src[i] = append(src[i], span.Take(stored[i])...)
		}
	}
	dst := make([]float32, a.Values())
	w.Decode(dst, src, a, new(tile.Scratch))
	return dst
}

// TestAreas: a weight restores to the same values in areas of any size, with what is shared
// held or not, and with codes by columns given by rows.
func TestAreas(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 9))
	for name, w := range weights(t) {
		var stored [][]byte
		for _, one := range w.Tensors() {
			data := random(r, one)
			if one.Role == tile.GroupOfColumn {
				for c := range one.Shape[0] {
					group := c * 7 % 3
					if strings.Contains(name, "in order") {
						group = c / 32
					}
					copy(data[4*c:], []byte{byte(group), 0, 0, 0})
				}
			}
			stored = append(stored, data)
		}
		cut := w.Cut().ForDecoding()
		all := tile.Area{Rows: cut.Rows, Cols: cut.Cols}
		want := restored(w, stored, all)
		same := func(what string, w Weight, stored [][]byte) {
			for range 40 {
				a := cut.Cover(tile.Area{Row: r.IntN(cut.Rows), Col: r.IntN(cut.Cols), Rows: 1, Cols: 1})
				a.Rows = min(a.Rows+cut.UnitRows*r.IntN(6), cut.Rows-a.Row)
				a.Cols = min(a.Cols+cut.UnitCols*r.IntN(6), cut.Cols-a.Col)
				for i, x := range restored(w, stored, a) {
					if y := want[a.Index(i, cut.Cols)]; math.Float32bits(x) != math.Float32bits(y) {
						t.Fatalf("%s%s: %v in %+v is %v, want %v", name, what, i, a, x, y)
					}
				}
			}
		}
		same("", w, stored)
		if by, ok := w.(ByColumns); ok {
			turned, transpose := by.ByRows()
			if name == "experts" { // whose matrices are turned one by one
				straight := slices.Clone(stored)
				for i := range straight {
					straight[i] = nil
					for bank := range 3 {
						matrix := make([]byte, len(stored[i])/3)
						transpose(matrix, stored[i][bank*len(matrix):(bank+1)*len(matrix)], 0)
						straight[i] = append(straight[i], matrix...)
					}
				}
				for range 40 {
					a := tile.Area{Row: 8 * r.IntN(12), Rows: 8, Cols: cut.Cols}
					a.Row += r.IntN(3) * 96
					src := [][]byte{straight[0][a.Row/2*cut.Cols : (a.Row+a.Rows)/2*cut.Cols], straight[1][a.Row/32*cut.Cols : (a.Row/32+1)*cut.Cols]}
					dst := make([]float32, a.Values())
					turned.Decode(dst, src, a, new(tile.Scratch))
					if !slices.Equal(dst, want[a.Row*cut.Cols:][:len(dst)]) {
						t.Fatalf("%s by rows: %+v is something else", name, a)
					}
				}
			} else if turned != nil {
				straight := slices.Clone(stored)
				straight[0] = make([]byte, len(stored[0]))
				runs := w.Needed(0, all)[0]
				half := runs.Count / 16 * 8
				at := half * int(runs.Size)
				transpose(straight[0], stored[0][:at], 0)
				transpose(straight[0], stored[0][at:], half)
				same(" by rows", turned, straight)
			}
		}
		sharing, ok := w.(Sharing)
		if !ok || len(sharing.Shared()) == 0 || name == "levels" { // its levels are random
			continue
		}
		var src [][]byte
		for _, i := range sharing.Shared() {
			src = append(src, stored[i])
		}
		held, err := sharing.WithShared(src)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, i := range sharing.Shared() {
			stored[i] = nil
		}
		same(" held", held, stored)
	}
}

// TestSpaced: codes and zero points of which none goes over the end of a word come out as
// they went in, where their number tells that they lie so and where the config has to.
func TestSpaced(t *testing.T) {
	older, later := true, false
	for _, bits := range []int{3, 5, 6, 7} {
		for _, cols := range []int{1, 11, 20, 64, 333} {
			const rows, group = 21, 8
			groups := (cols + group - 1) / group
			r := rand.New(rand.NewPCG(uint64(bits), uint64(cols)))
			per := 32 / bits
			pack := func(n, lines int, index func(word, line int) int) (codes []int, packed []byte) {
				codes, packed = make([]int, n*lines), make([]byte, 4*lines*((n+per-1)/per))
				for i := range codes {
					codes[i] = r.IntN(1 << bits)
					b := packed[4*index(i%n/per, i/n):]
					binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)|uint32(codes[i])<<(i%n%per*bits))
				}
				return codes, packed
			}
			words := (cols + per - 1) / per
			codes, packed := pack(cols, rows, func(word, row int) int { return row*words + word })
			zeroCodes, zeros := pack(rows, groups, func(word, group int) int { return word*groups + group })
			scales := make([]byte, 4*rows*groups)
			for i := range rows * groups {
				binary.LittleEndian.PutUint32(scales[4*i:], math.Float32bits(float32(i+1)))
			}
			open := func(spaced *bool) (Weight, error) {
				return NewPacked(of(tensor(tile.Weight, safetensors.I32, rows, words), tensor(tile.Scale, safetensors.F32, rows, groups), tensor(tile.Zeros, safetensors.I32, (rows+per-1)/per, groups)),
					Compressed{Bits: bits, Group: group, Shape: []int{rows, cols}, Spaced: spaced})
			}
			w, err := open(&older)
			if err != nil {
				t.Fatalf("%d bits, %d columns: %v", bits, cols, err)
			}
			got := restored(w, [][]byte{packed, scales, zeros}, tile.Area{Rows: rows, Cols: cols})
			for i, x := range got {
				row, g := i/cols, i%cols/group
				if want := float32(codes[i]-zeroCodes[g*rows+row]) * float32(row*groups+g+1); x != want {
					t.Fatalf("%d bits: value %d of %d columns is %v, want %v", bits, i, cols, x, want)
				}
			}
			if cols < 300 {
				continue
			}
			for _, spaced := range []*bool{nil, &later} {
				if w, err := open(spaced); err != nil || !w.(*Integers).spaced {
					t.Errorf("%d bits, %d columns: their words tell that they are spaced: %v", bits, cols, err)
				}
			}
		}
	}
}

// TestDirect: what is decoded to BF16 at once is what single precision rounds to, for
// every code with every scale; where BF16 might not hold it, nothing is decoded.
func TestDirect(t *testing.T) {
	const columns = 256
	w, err := NewMXFP4Experts(of(tensor(tile.Weight, safetensors.U8, 1, columns, 1, 16), tensor(tile.Scale, safetensors.U8, 1, columns, 1)))
	if err != nil {
		t.Fatal(err)
	}
	byRows, _ := w.ByRows()
	direct := byRows.(Direct)
	a := tile.Area{Rows: 32, Cols: columns}
	codes, scales := make([]byte, 16*columns), make([]byte, columns)
	dst, values, want := make([]byte, 2*a.Values()), make([]float32, a.Values()), make([]byte, 2*a.Values())
	for scale := range 256 {
		for i := range scales {
			scales[i] = byte(scale)
		}
		for i := range codes {
			codes[i] = byte(i)
		}
		exact := direct.DecodeBF16(dst, [][]byte{codes, scales}, a, new(tile.Scratch))
		if fits := scale >= 2 && scale <= 252; exact != fits {
			t.Fatalf("scale %d is decoded at once: %v, want %v", scale, exact, fits)
		} else if !exact {
			continue
		}
		byRows.Decode(values, [][]byte{codes, scales}, a, new(tile.Scratch))
		if widen.Narrow(want, values, safetensors.BF16); !slices.Equal(dst, want) {
			t.Fatalf("scale %d: got %x, want %x", scale, dst, want)
		}
	}
}
