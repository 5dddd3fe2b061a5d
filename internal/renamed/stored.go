package renamed

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// rowsOf says how the tensors of a layer lie along the rows of its weight. The error
// says why they do not move with these.
func rowsOf(l *layout.Layer) (*names.Layer, error) {
	shape := l.Shape()
	s := codec.Scheme(l.Codec)
	switch {
	case codec.IsPublished(l.Codec):
		return nil, fmt.Errorf("%s is stored as another program does, in %s: tensorpress transcode or dequantize first", l.Name, l.Format)
	case codec.IsForeign(l.Codec):
		return nil, fmt.Errorf("%s is in an older layout, %s: tensorpress migrate makes it ComfyUI's", l.Name, l.Layout.Name)
	case len(shape) < 2:
		return nil, fmt.Errorf("%s has no rows", l.Name)
	case s != nil && s.Kind == sdnq.ConvTranspose:
		return nil, fmt.Errorf("%s is a transposed convolution", l.Name)
	}
	out := &names.Layer{Rows: shape[0], Settings: settingsOf(l, s)}
	for _, t := range l.Codec.Tensors() {
		lies := names.Stored{Role: string(t.Role), Dtype: t.Dtype.String(), Width: t.Dtype.Bits() / 8, Shape: t.Shape}
		if s != nil {
			sdnqRows(&lies, t, s, shape)
		} else {
			nativeRows(&lies, t, l, shape)
		}
		if lies.Width == 0 {
			return nil, errors.New(t.Dtype.String() + " has no whole bytes")
		}
		out.Tensors = append(out.Tensors, lies)
	}
	return out, nil
}

// settingsOf is all that rows of one layer have in common.
func settingsOf(l *layout.Layer, s *sdnq.Scheme) string {
	if s == nil {
		cut := l.Codec.Cut()
		text := fmt.Sprintf("%s of %d columns", l.Format, l.Shape()[1])
		if cut.GroupCols > 1 && cut.GroupCols < cut.Cols {
			text += fmt.Sprintf(" in groups of %d", cut.GroupCols)
		}
		for _, key := range []string{"convrot", "convrot_groupsize", "group_size", "bits"} {
			if v, ok := l.Options.Get(key); ok {
				text += fmt.Sprintf(", %s %v", key, v)
			}
		}
		return text
	}
	words := []string{fmt.Sprintf("%s of %v columns", s.Dtype.Name, strings.Trim(fmt.Sprint(l.Shape()[1:]), "[]"))}
	if s.GroupSize > 0 {
		words[0] += fmt.Sprintf(" in groups of %d", s.GroupSize)
	}
	if s.Kind != sdnq.Linear {
		words = append(words, fmt.Sprintf("kind %d", s.Kind))
	}
	if s.Hadamard > 0 {
		words = append(words, fmt.Sprintf("rotated by %d", s.Hadamard))
	}
	if s.Codebook {
		words = append(words, "with a codebook")
	}
	if s.Matmul {
		words = append(words, "for products in "+s.MatmulDtype())
	}
	if scale, zero, _ := s.DoubleQuant(); scale+zero != "" {
		words = append(words, "scales in "+scale+" "+zero)
	}
	return strings.Join(words, ", ")
}

// sdnqRows are those of a layer of SDNQ's.
func sdnqRows(lies *names.Stored, t tile.Tensor, s *sdnq.Scheme, shape []int) {
	turned := 0
	if s.Transposed {
		turned = 1
	}
	scale, zero, _ := s.DoubleQuant()
	switch t.Role {
	case tile.SVDUp, tile.SVDDown:
		turned = 0
		if s.Matmul {
			turned = 1
		}
		lies.Along, lies.Axis, lies.Ranks = names.Up, turned, 1-turned
		if t.Role == tile.SVDDown {
			lies.Along, lies.Axis, lies.Ranks = names.Down, 0, turned
		}
	case tile.Scale2, tile.ScaleZeroPoint, tile.ZeroPointScale, tile.ZeroPoint2:
		lies.Along = names.Whole
	case tile.Weight:
		lies.Axis = turned
		if s.Dtype.Bitpacked() {
			lies.Unit = unitOf(s.Dtype.Bits, tile.Numel(shape[1:]))
		}
	default:
		lies.Axis = turned
		if s.GroupSize == -2 {
			lies.Along = names.Whole
			lies.PerRow = make([]int, len(t.Shape))
			for i := range lies.PerRow {
				lies.PerRow[i] = 1
			}
			if s.Codebook {
				lies.PerRow = []int{-1, tile.Numel(t.Shape)}
			} else if turned < len(lies.PerRow) {
				lies.PerRow[turned] = -1
			}
			return
		}
		stored := scale
		if t.Role == tile.ZeroPoint {
			stored = zero
		}
		if of := dtype.Lookup(stored); of != nil && of.Bitpacked() {
			lies.Unit = unitOf(of.Bits, s.Values/s.Group*s.Inner*s.Levels/shape[0])
		}
	}
}

// unitOf is how many rows of so many values fill whole blocks of packed codes.
func unitOf(bits, columns int) int {
	block := pack.Values(bits)
	return block / tile.GCD(max(columns, 1), block)
}

// swizzled are formats whose codes and scales are padded to whole tiles of so many rows.
var swizzled = map[string][2]int{"mxfp8": {32, 128}, "nvfp4": {16, 128}, "hybrid_mxfp8": {32, 128}}

// nativeRows are those of a layer of ComfyUI's formats, or of convert_to_quant's.
func nativeRows(lies *names.Stored, t tile.Tensor, l *layout.Layer, shape []int) {
	tiles := swizzled[l.Format]
	switch {
	case t.Role == tile.Weight:
		lies.Unit = tiles[0]
	case tile.Numel(t.Shape) == 1:
		lies.Along = names.Whole
		if l.Format == "int8_tensorwise" {
			lies.PerRow = []int{-1, 1}
		}
	case t.Role == tile.Codebook || t.Role == tile.SmoothFactor:
		lies.Along = names.Whole
	case t.Role == tile.ProjUp:
		lies.Along, lies.Ranks = names.Up, 1
	case t.Role == tile.ProjDown:
		lies.Along, lies.Ranks = names.Down, 1
	case l.Format == "awq_w4a16" || l.Format == "svdquant_w4a4":
		lies.Axis = 1
	case tiles[1] > 0:
		lies.Unit = tiles[1]
	case t.Shape[0] != shape[0]: // by blocks
		lies.Unit = l.Codec.Cut().GroupRows
	}
}
