package names

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// toy is a layer in a format made for the tests: value = code × scale + up · down,
// codes bytes, all else float32 with small whole numbers, so that sums are exact.
type toy struct {
	*Layer
	data map[string][]byte
}

// format is how a toy stores its tensors.
type format struct {
	columns    int
	transposed bool // codes and scales by columns
	unit       int  // rows that share a scale, 0 for a single one for all
	rank       int
	turned     bool // factors by columns
}

func newToy(r *rand.Rand, rows int, f format) *toy {
	t := &toy{&Layer{Rows: rows, Settings: "toy"}, map[string][]byte{}}
	add := func(s Stored) {
		bytes := make([]byte, s.bytes())
		for i := range bytes {
			if s.Width == 1 {
				bytes[i] = byte(r.IntN(16))
			} else if i%4 == 0 {
				binary.LittleEndian.PutUint32(bytes[i:], math.Float32bits(float32(r.IntN(9)+1)))
			}
		}
		t.Tensors = append(t.Tensors, s)
		t.data[s.Role] = bytes
	}
	codes := Stored{Role: "weight", Dtype: "U8", Width: 1, Shape: []int{rows, f.columns}}
	if f.transposed {
		codes.Shape, codes.Axis = []int{f.columns, rows}, 1
	}
	add(codes)
	scale := Stored{Role: "scale", Dtype: "F32", Width: 4, Shape: []int{unitsOf(rows, max(f.unit, 1)), 1}, Unit: f.unit}
	switch {
	case f.unit == 0 && f.transposed:
		scale.Along, scale.Shape, scale.PerRow = Whole, []int{1, 1}, []int{1, -1}
	case f.unit == 0:
		scale.Along, scale.Shape, scale.PerRow = Whole, []int{1, 1}, []int{-1, 1}
	case f.transposed:
		scale.Shape, scale.Axis = []int{1, scale.Shape[0]}, 1
	}
	add(scale)
	if f.rank > 0 {
		up := Stored{Role: "up", Dtype: "F32", Width: 4, Shape: []int{rows, f.rank}, Along: Up, Ranks: 1}
		down := Stored{Role: "down", Dtype: "F32", Width: 4, Shape: []int{f.rank, f.columns}, Along: Down}
		if f.turned {
			up.Shape, up.Axis, up.Ranks = []int{f.rank, rows}, 1, 0
			down.Shape, down.Ranks = []int{f.columns, f.rank}, 1
		}
		add(up)
		add(down)
	}
	return t
}

func (t *toy) float(role string, i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(t.data[role][i*4:])))
}

// values are the rows of the weight.
func (t *toy) values(f format) (rows [][]float64) {
	scales := len(t.data["scale"]) / 4
	rank := 0
	if up := t.stored("up"); up != nil {
		rank = up.Shape[up.Ranks]
	}
	for r := range t.Rows {
		row := make([]float64, f.columns)
		for c := range row {
			at, scale := r*f.columns+c, r/max(f.unit, 1)
			if f.transposed {
				at = c*t.Rows + r
			}
			if scales == 1 {
				scale = 0
			}
			row[c] = float64(t.data["weight"][at]) * t.float("scale", scale)
			for k := range rank {
				up, down := r*rank+k, k*f.columns+c
				if f.turned {
					up, down = k*t.Rows+r, c*rank+k
				}
				row[c] += t.float("up", up) * t.float("down", down)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// run carries a gathered layer out, in tiles of that many rows.
func run(t *testing.T, g *Gathered, toys map[string]*toy, tile int) *toy {
	t.Helper()
	out := &toy{&Layer{Rows: g.Rows, Settings: "toy"}, map[string][]byte{}}
	for i := range g.Tensors {
		m := &g.Tensors[i]
		var model *Stored
		for _, l := range toys {
			if s := l.stored(m.Role); s != nil && (model == nil || s.Along == m.Along) {
				model = s
			}
		}
		s := *model
		s.Shape, s.Along = m.Shape, m.Along
		if model.Along == Whole && m.Along == ByRows {
			s.Axis = slices.Index(model.PerRow, -1)
		}
		data := make([]byte, s.bytes())
		written := make([]int, len(data))
		for from := 0; from < g.Rows; from += tile {
			for r := range m.Runs(from, min(from+tile, g.Rows)) {
				if r.Source != "" {
					copy(data[r.To:r.To+r.Size], toys[r.Source].data[m.Role][r.From:r.From+r.Size])
				}
				for k := range r.Size {
					written[r.To+k]++
				}
			}
		}
		if slices.Min(written) != 1 || slices.Max(written) != 1 {
			t.Fatalf("%s %v: bytes are written %d to %d times", m.Role, m.Shape, slices.Min(written), slices.Max(written))
		}
		out.Tensors = append(out.Tensors, s)
		out.data[m.Role] = data
	}
	return out
}

var formats = map[string]format{
	"rows":               {columns: 6, unit: 1},
	"by columns":         {columns: 6, unit: 1, transposed: true},
	"blocks of rows":     {columns: 5, unit: 4},
	"one scale":          {columns: 6},
	"one, by columns":    {columns: 6, transposed: true},
	"low rank":           {columns: 6, unit: 1, rank: 3},
	"low rank, turned":   {columns: 6, unit: 1, rank: 2, turned: true},
	"one scale and rank": {columns: 3, rank: 1, transposed: true, turned: true},
}

// TestGather: rows keep their values to the last bit wherever they go, however the
// work is cut, and nothing is written twice or not at all.
func TestGather(t *testing.T) {
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			toys := map[string]*toy{"q": newToy(r, 8, f), "k": newToy(r, 4, f), "v": newToy(r, 7, f)}
			layers := map[string]*Layer{}
			values := map[string][][]float64{}
			for name, l := range toys {
				layers[name], values[name] = l.Layer, l.values(f)
			}
			for _, parts := range [][]Part{
				{{"q", 0, 8}, {"k", 0, 4}, {"v", 0, 7}},
				{{"q", 4, 8}, {"q", 0, 4}},
				{{"v", 4, 7}},
				{{"k", 0, 4}, {"q", 4, 8}, {"k", 0, 4}, {"v", 0, 7}},
			} {
				g, err := Gather(parts, layers, nil)
				if err != nil {
					t.Fatalf("%s: %v", shown(parts), err)
				}
				var want [][]float64
				for _, p := range parts {
					want = append(want, values[p.Source][p.From:p.To]...)
				}
				for _, tile := range []int{1, 3, 5, 100} {
					wider := f
					if g.PerRow {
						wider.unit = 1
					}
					if got := run(t, g, toys, tile).values(wider); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("%s in tiles of %d rows: %v, want %v", shown(parts), tile, got, want)
					}
				}
			}
		})
	}
}

// TestGatherAnything: so it is with parts of any rows, in any order.
func TestGatherAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 500 {
		f := format{columns: 1 + r.IntN(5), transposed: r.IntN(2) == 0, unit: r.IntN(2), rank: r.IntN(3), turned: r.IntN(2) == 0}
		toys, layers, values := map[string]*toy{}, map[string]*Layer{}, map[string][][]float64{}
		var parts []Part
		var want [][]float64
		for range 1 + r.IntN(4) {
			name := string(rune('a' + r.IntN(3)))
			if toys[name] == nil {
				toys[name] = newToy(r, 1+r.IntN(9), f)
				layers[name], values[name] = toys[name].Layer, toys[name].values(f)
			}
			from := r.IntN(toys[name].Rows)
			p := Part{name, from, from + 1 + r.IntN(toys[name].Rows-from)}
			parts = append(parts, p)
			want = append(want, values[name][p.From:p.To]...)
		}
		g, err := Gather(parts, layers, nil)
		if err != nil {
			t.Fatalf("%+v %s: %v", f, shown(parts), err)
		}
		wider := f
		if g.PerRow {
			wider.unit = 1
		}
		if got := run(t, g, toys, 1+r.IntN(12)).values(wider); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%+v %s: %v, want %v", f, shown(parts), got, want)
		}
	}
}

// TestGatherBack: what a split made is joined to the bytes that it was.
func TestGatherBack(t *testing.T) {
	for name, f := range formats {
		r := rand.New(rand.NewPCG(3, 4))
		all := newToy(r, 12, f)
		split := map[string]*toy{}
		layers := map[string]*Layer{}
		for name, p := range map[string]Part{"q": {"all", 0, 4}, "k": {"all", 4, 8}, "v": {"all", 8, 12}} {
			g, err := Gather([]Part{p}, map[string]*Layer{"all": all.Layer}, nil)
			if err != nil {
				t.Fatal(err)
			}
			split[name] = run(t, g, map[string]*toy{"all": all}, 2)
			layers[name] = split[name].Layer
		}
		same := func(role string, sources []string) bool {
			return !slices.ContainsFunc(sources, func(s string) bool { return string(split[s].data[role]) != string(split[sources[0]].data[role]) })
		}
		g, err := Gather([]Part{{"q", 0, 4}, {"k", 0, 4}, {"v", 0, 4}}, layers, same)
		if err != nil {
			t.Fatal(err)
		}
		back := run(t, g, split, 5)
		for role, data := range all.data {
			if string(back.data[role]) != string(data) {
				t.Errorf("%s: %s is not what it was", name, role)
			}
		}
		if g.Rank != f.rank || g.PerRow {
			t.Errorf("%s: rank %d, per row %v", name, g.Rank, g.PerRow)
		}
	}
}

// TestGatherMixed: a source with one scale joins those with one a row, and one
// without a low-rank part those that have one.
func TestGatherMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	one, each, ranked := format{columns: 4}, format{columns: 4, unit: 1}, format{columns: 4, unit: 1, rank: 2}
	toys := map[string]*toy{"one": newToy(r, 3, one), "each": newToy(r, 2, each), "ranked": newToy(r, 4, ranked)}
	layers := map[string]*Layer{"one": toys["one"].Layer, "each": toys["each"].Layer, "ranked": toys["ranked"].Layer}
	g, err := Gather([]Part{{"one", 0, 3}, {"each", 0, 2}, {"ranked", 0, 4}}, layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(toys["one"].values(one), toys["each"].values(each), toys["ranked"].values(ranked))
	if got := run(t, g, toys, 2).values(ranked); fmt.Sprint(got) != fmt.Sprint(want) || !g.PerRow || g.Rank != 2 {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestGatherRefuses: what cannot move with its rows says so.
func TestGatherRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	layers := map[string]*Layer{
		"a": newToy(r, 8, format{columns: 4, unit: 4}).Layer, "b": newToy(r, 8, format{columns: 4, unit: 4}).Layer,
		"c": newToy(r, 6, format{columns: 4, unit: 4}).Layer, "wide": newToy(r, 8, format{columns: 5, unit: 4}).Layer,
		"other": {Rows: 8, Settings: "int8"},
		"fixed": {Rows: 2, Settings: "toy", Tensors: []Stored{{Role: "scale", Along: Whole, Width: 4, Shape: []int{1}}}},
		"kept":  {Rows: 2, Settings: "toy", Tensors: []Stored{{Role: "scale", Along: Whole, Width: 4, Shape: []int{1}}}},
		"bare":  {Rows: 2, Settings: "toy"},
	}
	for _, c := range []struct {
		parts []Part
		why   string
	}{
		{[]Part{{"a", 0, 8}, {"plain", 0, 8}}, "plain is not quantized as a is"},
		{[]Part{{"a", 0, 8}, {"other", 0, 8}}, "a is toy, other is int8"},
		{[]Part{{"a", 2, 8}}, "rows 2 to 8 cannot be moved alone"},
		{[]Part{{"c", 0, 6}, {"a", 0, 8}}, "rows 0 to 6 cannot be moved alone"},
		{[]Part{{"a", 0, 9}}, "has no rows 0 to 9"},
		{[]Part{{"a", 0, 8}, {"wide", 0, 8}}, "lies otherwise"},
		{[]Part{{"fixed", 0, 2}, {"kept", 0, 2}}, "the format has one for all rows"},
		{[]Part{{"fixed", 0, 2}, {"bare", 0, 2}}, "bare has no scale"},
	} {
		if _, err := Gather(c.parts, layers, nil); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", shown(c.parts), err, c.why)
		}
	}
}

// TestGatherOf prints what a conformance script asks to be gathered.
func TestGatherOf(t *testing.T) {
	path := os.Getenv("TENSORPRESS_ROWS_OF")
	if path == "" {
		t.Skip("for conformance/names/layers.py")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	layers := map[string]*Layer{}
	var parts []Part
	var alike []string
	tile := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Split(lines.Text(), "\t")
		number := func(i int) int {
			n := readShape(t, w[i])
			return n[0]
		}
		switch w[0] {
		case "layer":
			layers[w[1]] = &Layer{Rows: number(2), Settings: w[3]}
		case "stored":
			s := Stored{Role: w[2], Dtype: w[3], Width: number(4), Shape: readShape(t, w[5]), Along: Along(number(6)), Axis: number(7), Ranks: number(8), Unit: number(9)}
			if w[10] != "" {
				s.PerRow = readShape(t, w[10])
			}
			layers[w[1]].Tensors = append(layers[w[1]].Tensors, s)
		case "part":
			parts = append(parts, Part{w[1], number(2), number(3)})
		case "same":
			alike = append(alike, w[1])
		case "tile":
			tile = number(1)
		}
	}
	g, err := Gather(parts, layers, func(role string, _ []string) bool { return slices.Contains(alike, role) })
	if err != nil {
		fmt.Printf("refused\t%v\n", err)
		return
	}
	for i := range g.Tensors {
		m := &g.Tensors[i]
		fmt.Printf("tensor\t%s\t%s\t%s\n", m.Role, m.Dtype, strings.Trim(strings.ReplaceAll(fmt.Sprint(m.Shape), " ", ","), "[]"))
		for from := 0; from < g.Rows; from += tile {
			for r := range m.Runs(from, min(from+tile, g.Rows)) {
				fmt.Printf("run\t%s\t%d\t%d\t%s\t%d\n", m.Role, r.To, r.Size, r.Source, r.From)
			}
		}
	}
}
