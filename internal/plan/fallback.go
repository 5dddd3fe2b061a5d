package plan

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/codec"
)

// parts of a layer that its dtype can do without where the layer cannot have
// them: what asks for them, the key of its metadata that says that it has them,
// and what is said of layers that have not.
var parts = []struct {
	asked func(s *codec.Settings) bool
	key   string
	lack  string
	banks bool // of experts in one tensor, which may lack it for a reason of their own
}{
	{func(s *codec.Settings) bool { return s.ConvRot || s.DynamicConvRot }, "convrot_groupsize", "not rotated, since no rotation group divides their columns", false},
	{func(s *codec.Settings) bool { return s.ConvRot || s.DynamicConvRot }, "convrot_groupsize", "not rotated, since they are experts in one tensor, which ComfyUI does not rotate back", true},
	{func(s *codec.Settings) bool { return s.Hadamard }, "use_hadamard", "not rotated, since no rotation group divides their columns", false},
	{func(s *codec.Settings) bool { return s.SVDRank > 0 }, "use_svd", "without a low-rank part, for which they are too small", false},
	{func(s *codec.Settings) bool { return s.Codebook }, "use_codebook", "without a codebook, which their dtype has not", false},
}

// fallbackNotes count the layers that lack what was asked for.
func fallbackNotes(steps []Step) []string {
	var notes []string
	for _, part := range parts {
		asked, lacking, first := 0, 0, ""
		for i := range steps {
			s := &steps[i]
			if s.Action != Quantize || !part.asked(s.Settings) || part.banks != (codec.Matrices(s.Codec) != nil) {
				continue
			}
			asked++
			if _, has := s.Options.Get(part.key); !has {
				if lacking++; lacking == 1 {
					first = s.Layer
				}
			}
		}
		if lacking > 0 {
			notes = append(notes, fmt.Sprintf("%d of %d layers are %s: %s", lacking, asked, part.lack, firstAndMore(first, lacking)))
		}
	}
	return notes
}

// searchNotes say which dtypes a search gains nothing in.
func searchNotes(steps []Step) []string {
	layers, dtypes := map[string]int{}, []string(nil)
	for i := range steps {
		s := &steps[i]
		if s.Action != Quantize || s.Move != nil || !s.Settings.Search || codec.Gains(s.Codec) {
			continue
		}
		if layers[s.Dtype] == 0 {
			dtypes = append(dtypes, s.Dtype)
		}
		layers[s.Dtype]++
	}
	var notes []string
	for _, d := range dtypes {
		notes = append(notes, fmt.Sprintf("`Search` gains nothing in %s: %s", d, storedAsWithout(layers[d])))
	}
	return notes
}

func storedAsWithout(layers int) string {
	if layers == 1 {
		return "1 layer is stored as without it"
	}
	return fmt.Sprintf("%d layers are stored as without it", layers)
}

func firstAndMore(first string, n int) string {
	if n == 1 {
		return first
	}
	return fmt.Sprintf("%s and %d more", first, n-1)
}
