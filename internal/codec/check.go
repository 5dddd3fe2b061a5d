package codec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// takes reports whether a setting means anything to the format.
func (f *Format) takes(one *Field) bool {
	return one.of == ofAll || one.of == ofSDNQ && f == sdnqFormat ||
		one.Flag == "scale" && f.Scales != nil || slices.Contains(f.Takes, one.Flag)
}

var defaults = Default()

// Without returns settings without those that the format has no use for, but
// for the named ones, which were asked of it.
func (f *Format) Without(s Settings, asked func(one *Field) bool) Settings {
	for i := range fields {
		one := &fields[i]
		useless := !f.takes(one) || one.Flag == "scale" && f.Scales[s.Scale] == ""
		if useless && !asked(one) {
			one.reset(&s)
		}
	}
	return s
}

// Scaled returns the format that --scale makes of this one.
func (f *Format) Scaled(scale string) *Format {
	if name, ok := f.Scales[scale]; ok {
		if kin, err := ByName(name); err == nil {
			return kin
		}
	}
	return f
}

// Check refuses settings that hold for no weight at all.
func (f *Format) Check(s Settings) error {
	for i := range fields {
		one := &fields[i]
		switch {
		case !one.unusual(&s) || f.takes(one):
		case f == sdnqFormat && one.Flag == "scale":
			return errors.New("SDNQ dtypes take `GroupSize`, not `Scale`")
		case f == sdnqFormat:
			return fmt.Errorf("SDNQ dtypes have no %s: it is for ComfyUI's formats", words(one.Flag))
		case one.of == ofSDNQ:
			return fmt.Errorf("%s has no %s: it is for SDNQ's dtypes", f.Name, one.Flag)
		default:
			return fmt.Errorf("%s has no %s", f.Name, words(one.Flag))
		}
	}
	if s.Scale != "" && f.Scales != nil && f.Scales[s.Scale] != f.Name {
		return fmt.Errorf("%s has scale %s, not %s", f.Name, strings.Join(slices.Sorted(maps.Keys(f.Scales)), " or "), s.Scale)
	}
	if f.ReadOnly != "" {
		return fmt.Errorf("%s is not written: %s", f.Name, f.ReadOnly)
	}
	if f.Refuse != nil {
		if err := f.Refuse(s); err != nil {
			return err
		}
	}
	if err := f.checkVariant(s); err != nil {
		return err
	}
	return refuseOutputDtype(s)
}

func (f *Format) checkVariant(s Settings) error {
	if s.Variant != "" && s.Variant != f.Variant {
		return fmt.Errorf("%s has no variant %s", f.Name, s.Variant)
	}
	return nil
}

func words(flag string) string { return strings.ReplaceAll(flag, "-", " ") }

// Make resolves settings for a source, after [Format.Check]. The object is the
// layer's JSON in the comfy layout.
func (f *Format) Make(src Source, s Settings) (Codec, pyjson.Object, error) {
	if err := f.Check(s); err != nil {
		return nil, nil, err
	}
	make, sides := f.make, src.Shape
	if len(src.Shape) == 3 && s.Kind == sdnq.Linear {
		if f.Banks == "" {
			return nil, nil, fmt.Errorf("%s holds no experts in one tensor: %s do", f.Name, holdBanks())
		}
		make, sides = f.makeBank, src.Shape[1:]
	}
	if n := s.WholeBlocks; n > 0 && !wholeBlocks(sides, n) {
		return nil, nil, fmt.Errorf("%d does not divide both sides of %v", n, sides)
	}
	c, metadata, err := make(src, s)
	if err != nil {
		return nil, nil, err
	}
	if s.ScaleAsInput && Matrices(c) == nil {
		c = newScaleAsInput(c)
	}
	return c, metadata, nil
}

// wholeBlocks reports whether a matrix is of whole square blocks.
func wholeBlocks(shape []int, side int) bool {
	for _, n := range shape {
		if n < side || n%side != 0 {
			return false
		}
	}
	return true
}
