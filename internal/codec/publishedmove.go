package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/published"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// FromPublished returns how a layer that another program has published is moved to SDNQ's
// layout, or to a format of ComfyUI's. The error says why it cannot be.
func FromPublished(src Source, kind sdnq.Kind, c Codec, toSDNQ bool, n Native) (*Move, error) {
	p, _ := c.(publishedWeight)
	w, ok := p.Weight.(published.Grouped)
	if !ok {
		return nil, errors.New("no other format has its codes and scales")
	}
	form, err := w.Form()
	if err != nil {
		return nil, err
	}
	var m *Move
	if toSDNQ {
		m, err = publishedToSDNQ(src, kind, w, form)
	} else {
		m, err = publishedToNative(src, w, form, n)
	}
	if err != nil {
		return nil, err
	}
	m.From = c
	m.again = func(held Codec) (*Move, error) { return FromPublished(src, kind, held, toSDNQ, n) }
	return m, nil
}

// publishedToSDNQ stores the codes as they are, scales and zeros in F32.
func publishedToSDNQ(src Source, kind sdnq.Kind, w published.Grouped, form published.Form) (*Move, error) {
	group := form.Group
	if group >= matrix(src.Shape)[1] {
		group = -1
	}
	given := sdnqSettings(form.Dtype, group)
	given.Kind = kind
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
	if s.GroupSize != group {
		return nil, fmt.Errorf("SDNQ would have groups of %d, not of %d", s.GroupSize, form.Group)
	}
	m := &Move{Format: sdnqFormat, To: to, Metadata: sdnqMetadata(s, src), Settings: given, Rounds: form.Rounds}
	m.pieces = []piece{packedCodes(w, s.Bits), floatSides(w, false)}
	if form.Zeros {
		m.pieces = append(m.pieces, floatSides(w, true))
	}
	return m, nil
}

// packedCodes stores codes as SDNQ packs them.
func packedCodes(w published.Grouped, bits int) piece {
	return func(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) {
		codes := make([]byte, a.Values())
		w.Codes(codes, src, a, s)
		pack.Bytes(dst, codes, bits)
	}
}

// floatSides stores scales, or zeros, in F32. Where an area goes on in a group, its first
// scale is that of an area before.
func floatSides(w published.Grouped, zeros bool) piece {
	return func(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) {
		values, zero := w.Sides(src, a, s)
		if zeros {
			values = zero
		}
		for i, x := range values[len(values)-len(dst)/4:] {
			putF32(dst, i, x)
		}
	}
}

// publishedToNative finds the format of ComfyUI's that has the codes.
func publishedToNative(src Source, w published.Grouped, form published.Form, n Native) (*Move, error) {
	fours, isFours := w.(*published.Fours)
	switch {
	case form.Dtype == "int8" && form.Group >= src.Shape[1]:
		return publishedToInt8(src, w, form)
	case form.Dtype == "uint4":
		return publishedToAWQ(src, w, form, n)
	case isFours && form.Group == 16:
		return publishedToNVFP4(src, fours)
	}
	return nil, fmt.Errorf("no format of ComfyUI's has %s codes in groups of %d", form.Dtype, form.Group)
}

func publishedToInt8(src Source, w published.Grouped, form published.Form) (*Move, error) {
	to, metadata, err := int8Tensorwise.make(src, Settings{})
	if err != nil {
		return nil, err
	}
	m := &Move{Format: int8Tensorwise, To: to, Metadata: metadata, Rounds: form.Rounds}
	m.pieces = []piece{packedCodes(w, 8), floatSides(w, false)}
	return m, nil
}

func publishedToAWQ(src Source, w published.Grouped, form published.Form, n Native) (*Move, error) {
	given := Settings{GroupSize: form.Group}
	to, metadata, err := awqW4A16.make(src, given)
	scales := safetensors.BF16
	if err == nil && n.Scales != 0 {
		scales = n.Scales
		to, err = newAWQIn(src, given, scales)
	}
	if err != nil {
		return nil, err
	}
	m := &Move{Format: awqW4A16, To: to, Metadata: metadata, Settings: given, Rounds: form.Rounds || scales != safetensors.F32}
	side := func(zeros bool) piece {
		return func(dst []byte, src [][]byte, a tile.Area, s *tile.Scratch) {
			values, zero := w.Sides(src, a, s)
			if zeros {
				for i, scale := range values { // of code 8
					zero[i] += float32(8 * scale)
				}
				values = zero
			}
			putTransposed(dst, values, a.Rows, scales)
		}
	}
	m.pieces = []piece{packedCodes(w, 4), side(false), side(true)}
	return m, nil
}

// publishedToNVFP4 turns the codes of each byte around, and lays the scales in tiles. A
// scale of all that divides becomes its inverse, which is rounded.
func publishedToNVFP4(src Source, w *published.Fours) (*Move, error) {
	to, metadata, err := nvfp4.make(src, Settings{})
	if err != nil {
		return nil, err
	}
	layout, ok := to.(*comfy.NVFP4)
	if !ok {
		return nil, errors.New("nvfp4 is stored in another way here")
	}
	_, factor := w.HasAll()
	m := &Move{Format: nvfp4, To: to, Metadata: metadata, Rounds: !factor, bands: true}
	m.pieces = []piece{
		func(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) {
			clear(dst)
			codes := make([]byte, 2*len(src[0]))
			kernel.SplitFours(codes, src[0])
			kernel.PackFoursHigh(dst[:len(src[0])], codes)
		},
		func(dst []byte, src [][]byte, a tile.Area, _ *tile.Scratch) { layout.PutScales(dst, src[1], a) },
		func(dst []byte, src [][]byte, _ tile.Area, _ *tile.Scratch) {
			if len(dst) > 0 {
				binary.LittleEndian.PutUint32(dst, math.Float32bits(w.All(src)))
			}
		},
	}
	return m, nil
}
