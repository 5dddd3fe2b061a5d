package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Move stores a layer's codes in another format without rounding them again.
type Move struct {
	Format *Format // of To
	From   Codec
	To     Codec
	// Metadata is the layer's JSON in the comfy layout.
	Metadata pyjson.Object
	// Settings are what an SDNQ config says of it, where Format is SDNQ's.
	Settings Settings
	// Rounds says that the new format rounds the scales.
	Rounds bool

	pieces []piece // one for each tensor of To
	bands  bool    // To is of bands of rows, which areas hold whole
	again  func(held Codec) (*Move, error)
}

// WithShared returns a move of what every area takes all of, nil where there is none: its
// tensors, and the function that makes of their contents a move that reads them no more.
func (m *Move) WithShared() (tensors []int, held func(src [][]byte) (*Move, error)) {
	if m.again == nil {
		return nil, nil
	}
	tensors, take := SharedTensors(m.From)
	return tensors, func(src [][]byte) (*Move, error) {
		c, err := take(src)
		if err != nil {
			return nil, err
		}
		return m.again(c)
	}
}

// piece makes what an area has of one tensor from what it has of the stored
// ones.
type piece func(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch)

// Area is the shape of areas of about want values, at most limit where they
// can be that small: whole rows, or parts of a single one.
func (m *Move) Area(want, limit int) (rows, cols int) {
	all := rowsAndColumns(m.From)
	rows, cols = max(want/max(all[1], 1), 1), all[1]
	if cut := m.To.Cut(); m.bands && cut.UnitRows*cols > limit {
		return min(cut.UnitRows, all[0]), min(max(limit/cut.UnitRows/cut.UnitCols, 1)*cut.UnitCols, all[1])
	}
	if unit := m.To.Cut().UnitRows; unit*cols <= limit {
		rows = (rows + unit - 1) / unit * unit
	}
	rows = min(rows, max(limit/max(cols, 1), 1), all[0])
	if from, to := m.From.Cut(), m.To.Cut(); cols > limit && from.UnitCols < cols {
		unit := 1
		for _, n := range []int{from.UnitCols, to.UnitCols, to.GroupCols % cols, from.GroupCols % cols} {
			unit = leastCommon(unit, max(n, 1))
		}
		cols = max(limit/unit, 1) * unit
	}
	return rows, min(cols, all[1])
}

func leastCommon(a, b int) int {
	n := a
	for n%b != 0 {
		n += a
	}
	return n
}

// Transposes reports whether codes are stored column by column on one side, in runs
// that are longer the more rows an area has.
func (m *Move) Transposes() bool {
	for _, c := range []Codec{m.From, m.To} {
		if s := Scheme(c); s != nil && s.Transposed {
			return true
		}
	}
	return false
}

// Areas yields them for a whole weight.
func (m *Move) Areas(rows, cols int) []tile.Area {
	all := rowsAndColumns(m.From)
	var areas []tile.Area
	for _, a := range (tile.Cut{Rows: all[0], Cols: all[1]}).Areas(rows, cols) {
		areas = append(areas, a)
	}
	return areas
}

// Needed is what of tensor i of the stored layer an area takes.
func (m *Move) Needed(i int, a tile.Area) []tile.Span { return m.From.Needed(i, in(m.From, a)) }

// Written is what of tensor i of the moved layer it fills.
func (m *Move) Written(i int, a tile.Area) []tile.Span { return m.To.Written(i, in(m.To, a)) }

// Bytes fills what Written names from what Needed names.
func (m *Move) Bytes(dst, src [][]byte, a tile.Area, s *tile.Scratch) {
	for i, p := range m.pieces {
		p(dst[i], src, a, s)
	}
}

// Readable returns what Bytes has filled for an area, with what decoding it takes beside: what
// an area before has filled.
func (m *Move) Readable(dst, src [][]byte, a tile.Area, s *tile.Scratch) [][]byte {
	all := make([][]byte, len(dst))
	for i := range dst {
		if all[i] = dst[i]; len(dst[i]) < tile.SpanBytes(m.To.Needed(i, in(m.To, a))) {
			all[i] = make([]byte, tile.SpanBytes(m.To.Needed(i, in(m.To, a))))
			m.pieces[i](all[i], src, a, s)
		}
	}
	return all
}

// Values restores an area from either layer's bytes.
func (m *Move) Values(dst []float32, c Codec, src [][]byte, a tile.Area, s *tile.Scratch) {
	c.Decode(dst, src, in(c, a), safetensors.F32, s)
}

// in is an area of whole rows, or of a part of one, as the codec counts: some
// take a weight for a single row.
func in(c Codec, a tile.Area) tile.Area {
	columns := rowsAndColumns(c)[1]
	if cut := c.Cut(); cut.Cols == columns && cut.Rows != 1 {
		return a
	}
	return tile.Area{Col: a.Row*columns + a.Col, Rows: 1, Cols: a.Values()}
}

// rowsAndColumns are those of a codec's weight: of a bank all rows of all matrices.
func rowsAndColumns(c Codec) [2]int {
	if b := Matrices(c); b != nil {
		return [2]int{b.shape[0] * b.shape[1], b.shape[2]}
	}
	return matrix(c.Shape())
}

// matrix is a weight's shape as rows and columns.
func matrix(shape []int) [2]int {
	if len(shape) == 0 || shape[0] == 0 {
		return [2]int{0, 0}
	}
	return [2]int{shape[0], tile.Numel(shape) / shape[0]}
}

// Native are choices about formats of ComfyUI's.
type Native struct {
	// Rows lets float8 with a scale a row become convert_to_quant's format,
	// which stock ComfyUI does not load.
	Rows bool
	// Scales is the dtype of awq_w4a16's scales and zeros, 0 for BF16.
	Scales safetensors.Dtype
}

// ToNative returns how an SDNQ layer is moved to a format of ComfyUI's. The
// error says why it cannot be.
func ToNative(c Codec, n Native) (*Move, error) {
	s := Scheme(c)
	if s == nil {
		return nil, errors.New("it is no SDNQ layer")
	}
	if err := plainCodes(s); err != nil {
		return nil, err
	}
	f, given := nativeOf(s)
	switch {
	case f == nil:
		return nil, fmt.Errorf("no format of ComfyUI's stores %s", scalesOf(s))
	case f.ComfyUI == "" && !n.Rows:
		return nil, fmt.Errorf("of %s there is only convert_to_quant's %s, which stock ComfyUI does not load: `Scale` row takes it", scalesOf(s), f.Name)
	}
	return toNative(c, s, f, given, n)
}

// plainCodes refuses what no other format has.
func plainCodes(s *sdnq.Scheme) error {
	switch {
	case s.Kind != sdnq.Linear && s.Kind != sdnq.Embedding:
		return errors.New("ComfyUI has no quantized convolutions")
	case s.Rank > 0:
		return fmt.Errorf("ComfyUI has no low-rank part (rank %d)", s.Rank)
	case s.Codebook:
		return errors.New("ComfyUI has no codebooks")
	}
	return nil
}

func scalesOf(s *sdnq.Scheme) string {
	text := s.Dtype.Name
	switch {
	case s.GroupSize == -2:
		text += " with one scale"
	case s.GroupSize < 0:
		text += " with a scale a row"
	default:
		text += fmt.Sprintf(" in groups of %d", s.GroupSize)
	}
	if s.Hadamard > 0 {
		text += fmt.Sprintf(", rotated by %d", s.Hadamard)
	}
	return text
}

// origin is a kind of SDNQ layer whose arithmetic a format has too.
type origin struct {
	dtype string
	// when tells whether a layer is one, and the format's settings that make it so.
	when func(s *sdnq.Scheme) (Settings, bool)
}

// nativeOf is the format of ComfyUI's, or of convert_to_quant's, that has the
// arithmetic of an SDNQ layer, nil for none.
func nativeOf(s *sdnq.Scheme) (*Format, Settings) {
	for _, f := range Formats() {
		for _, from := range f.fromSDNQ {
			if from.dtype != s.Dtype.Name {
				continue
			}
			if given, ok := from.when(s); ok {
				return f, given
			}
		}
	}
	return nil, Settings{}
}

// toNative fits the pieces to the format's tensors.
func toNative(c Codec, s *sdnq.Scheme, f *Format, given Settings, n Native) (*Move, error) {
	to, metadata, err := f.make(Source{Shape: s.Shape(), Dtype: safetensors.BF16}, given)
	if err == nil && f == awqW4A16 && n.Scales != 0 {
		to, err = newAWQIn(Source{Shape: s.Shape()}, given, n.Scales)
	}
	if err != nil {
		return nil, err
	}
	m := &Move{Format: f, From: c, To: to, Metadata: metadata, Settings: given, Rounds: s.ScaleDtype != safetensors.F32}
	m.pieces = []piece{copied(0), widened(s)}
	if s.Transposed {
		m.pieces[0] = transposed
	}
	if f == awqW4A16 {
		m.Rounds = true
		d := to.Tensors()[1].Dtype
		m.pieces = []piece{copied(0), awqScales(s, d), awqZeros(s, d)}
	}
	return m, nil
}

// FromNative returns how a layer of a format of ComfyUI's, a linear one or an
// embedding, is moved to SDNQ's. src has the dtype of the weight before it was
// quantized.
func FromNative(src Source, kind sdnq.Kind, f *Format, metadata pyjson.Object, c Codec) (*Move, error) {
	if Scheme(c) != nil {
		return Renamed(src, metadata, c)
	}
	if f.toSDNQ == nil {
		return nil, fmt.Errorf("no SDNQ dtype has the codes and scales of %s", f.Name)
	}
	given, err := f.toSDNQ(metadata, c)
	if err != nil {
		return nil, err
	}
	given.Kind = kind
	return fromNative(src, c, given)
}

// Renamed keeps an SDNQ layer as it is; metadata are its settings, as its own
// JSON or a config says them.
func Renamed(src Source, metadata pyjson.Object, c Codec) (*Move, error) {
	s := Scheme(c)
	if s == nil {
		return nil, errors.New("it is no SDNQ layer")
	}
	given, err := SaidOf(metadata, c)
	if err != nil {
		return nil, err
	}
	m := MoveAsIs(sdnqFormat, sdnqMetadata(s, src), c)
	m.Settings = given
	return m, nil
}

// Said are the settings of a stored SDNQ layer, as a config says them: there,
// unlike in a layer's own JSON, zero points are stored as scales are unless it
// says "none".
func Said(metadata pyjson.Object, c Codec) (Settings, error) {
	given, err := Default().FromConfig(metadata)
	given.QuantizedMatmulConv = given.QuantizedMatmul
	scale, zero, _ := Scheme(c).DoubleQuant()
	if scale != "" && zero == "" && slices.ContainsFunc(c.Tensors(), func(t tile.Tensor) bool { return t.Role == tile.ZeroPoint }) {
		given.ZeroPointDtype = "none"
	}
	return given, err
}

// SaidOf is [Said] with what the layer itself tells: its kind, and the group in effect.
func SaidOf(metadata pyjson.Object, c Codec) (Settings, error) {
	given, err := Said(metadata, c)
	given.Kind, given.GroupSize = Scheme(c).Kind, Scheme(c).GroupSize
	return given, err
}

// MoveAsIs leaves a layer of the comfy layout as it is.
func MoveAsIs(f *Format, metadata pyjson.Object, c Codec) *Move {
	m := &Move{Format: f, From: c, To: c, Metadata: metadata}
	for i := range c.Tensors() {
		m.pieces = append(m.pieces, copied(i))
	}
	return m
}

// Keep takes over what an SDNQ layer's own JSON says beside the format's keys, such as
// ComfyUI's full_precision_matrix_mult, which means the same of ComfyUI's formats.
func (m *Move) Keep(o pyjson.Object) {
	if format, _ := o.Get("format"); format != sdnqFormat.Name {
		return // a config says it of many layers
	}
	for _, one := range o {
		if _, has := m.Metadata.Get(one.Key); !has && !isOfSDNQ(one.Key) {
			m.Metadata = m.Metadata.Set(one.Key, one.Value)
		}
	}
}

// isOfSDNQ reports whether the JSON of SDNQ's layers has a key.
func isOfSDNQ(key string) bool {
	return slices.Contains([]string{"format", "format_version", "orig_shape", "orig_dtype", "kind", "use_svd"}, key) ||
		slices.ContainsFunc(fields, func(f Field) bool { return f.Key == key })
}

func sdnqSettings(name string, group int) Settings {
	s := Default()
	s.Dtype, s.GroupSize = name, group
	return s
}

// perRow is SDNQ's group size for one scale a row, or for a single one.
func perRow(c Codec) int {
	if tile.Numel(c.Tensors()[1].Shape) == c.Shape()[0] {
		return -1
	}
	return -2
}

func fromNative(src Source, c Codec, given Settings) (*Move, error) {
	o, err := given.options(src)
	if err != nil {
		return nil, err
	}
	o.ModelDtype = 0
	to, err := newScheme(src.Shape, o)
	if err != nil {
		return nil, err
	}
	s := Scheme(to)
	if given.Hadamard && s.Hadamard != given.HadamardGroupSize {
		return nil, fmt.Errorf("SDNQ would rotate by %d, not by %d", s.Hadamard, given.HadamardGroupSize)
	}
	if s.GroupSize != given.GroupSize && s.GroupSize != -1 {
		return nil, fmt.Errorf("SDNQ would have groups of %d, not of %d", s.GroupSize, given.GroupSize)
	}
	m := &Move{Format: sdnqFormat, From: c, To: to, Metadata: sdnqMetadata(s, src), Settings: given}
	m.pieces = []piece{copied(0), copied(1)}
	switch s.Dtype.Name {
	case "int4":
		m.pieces[0] = fromNibbles
	case "uint4":
		m.Rounds = true
		scales := c.Tensors()[1].Dtype
		m.pieces = []piece{copied(0), uint4Scales(scales, s), uint4Zeros(scales, s)}
	}
	return m, nil
}

// copied takes tensor i as it is. Where an area goes on in a group, what it
// needs begins with that group's scale, which it does not write.
func copied(i int) piece {
	return func(dst []byte, src [][]byte, _ tile.Area, _ *tile.Scratch) {
		copy(dst, src[i][len(src[i])-len(dst):])
	}
}

// fromNibbles takes 4-bit integers in two's complement, two to a byte, for
// SDNQ's, which count from the least.
func fromNibbles(dst []byte, src [][]byte, _ tile.Area, _ *tile.Scratch) {
	for i, b := range src[0] {
		dst[i] = b ^ 0x88
	}
}

// transposed stores codes of one byte, which were [columns, rows], in row-major order.
func transposed(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) {
	for i := range a.Rows {
		for j := range a.Cols {
			dst[i*a.Cols+j] = src[0][j*a.Rows+i]
		}
	}
}

// widened stores a scheme's scales in F32.
func widened(s *sdnq.Scheme) piece {
	if scale, _, _ := s.DoubleQuant(); scale == "" && s.ScaleDtype == safetensors.F32 {
		return copied(1)
	}
	return func(dst []byte, src [][]byte, a tile.Area, scratch *tile.Scratch) {
		scales := s.Scales(src, start(s, a), a.Values(), scratch)
		scales = scales[len(scales)-len(dst)/4:]
		for k, x := range scales {
			putF32(dst, k, x)
		}
	}
}

// start is where an area begins in the flattened weight.
func start(s *sdnq.Scheme, a tile.Area) int { return a.Index(0, matrix(s.Shape())[1]) }

// awqScales stores a scheme's scales, [rows, groups], group by group.
func awqScales(s *sdnq.Scheme, d safetensors.Dtype) piece {
	return func(dst []byte, src [][]byte, a tile.Area, scratch *tile.Scratch) {
		putTransposed(dst, s.Scales(src, start(s, a), a.Values(), scratch), a.Rows, d)
	}
}

// awqZeros stores the value of code 8: zero point + 8·scale.
func awqZeros(s *sdnq.Scheme, d safetensors.Dtype) piece {
	return func(dst []byte, src [][]byte, a tile.Area, scratch *tile.Scratch) {
		zeros := s.ZeroPoints(src, start(s, a), a.Values(), scratch)
		for i, scale := range s.Scales(src, start(s, a), a.Values(), scratch) {
			zeros[i] += float32(8 * scale)
		}
		putTransposed(dst, zeros, a.Rows, d)
	}
}

// putTransposed stores values of that many rows column by column.
func putTransposed(dst []byte, values []float32, rows int, d safetensors.Dtype) {
	columns := len(values) / rows
	width := d.Bits() / 8
	transposed := make([]float32, len(values))
	for i, v := range values {
		transposed[i%columns*rows+i/columns] = v
	}
	floats.Narrow(dst[:len(values)*width], transposed, d)
}

func uint4Scales(d safetensors.Dtype, s *sdnq.Scheme) piece {
	return func(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) {
		rows, groups := a.Rows, groupsIn(s, a.Cols)
		for r := range rows {
			for g := range groups {
				putF32(dst, r*groups+g, getFloat(src[1], g*rows+r, d))
			}
		}
	}
}

// uint4Zeros stores the value of code 0: zero − 8·scale.
func uint4Zeros(d safetensors.Dtype, s *sdnq.Scheme) piece {
	return func(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) {
		rows, groups := a.Rows, groupsIn(s, a.Cols)
		for r := range rows {
			for g := range groups {
				scale, zero := getFloat(src[1], g*rows+r, d), getFloat(src[2], g*rows+r, d)
				putF32(dst, r*groups+g, zero-float32(8*scale))
			}
		}
	}
}

func groupsIn(s *sdnq.Scheme, cols int) int {
	if s.GroupSize < 0 {
		return 1
	}
	return cols / s.GroupSize
}

func getFloat(src []byte, i int, d safetensors.Dtype) float32 {
	switch d {
	case safetensors.BF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	case safetensors.F16:
		return kernel.Half(binary.LittleEndian.Uint16(src[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
}

func putF32(dst []byte, i int, x float32) {
	binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
}
