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
}{
	{func(s *codec.Settings) bool { return s.ConvRot || s.DynamicConvRot }, "convrot_groupsize", "not rotated, since no rotation group divides their columns"},
	{func(s *codec.Settings) bool { return s.Hadamard }, "use_hadamard", "not rotated, since no rotation group divides their columns"},
	{func(s *codec.Settings) bool { return s.SVDRank > 0 }, "use_svd", "without a low-rank part, for which they are too small"},
	{func(s *codec.Settings) bool { return s.Codebook }, "use_codebook", "without a codebook, which their dtype has not"},
}

// fallbackNotes count the layers that lack what was asked for.
func fallbackNotes(steps []Step) []string {
	var notes []string
	for _, part := range parts {
		asked, lacking, first := 0, 0, ""
		for i := range steps {
			s := &steps[i]
			if s.Action != Quantize || !part.asked(s.Settings) {
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

func firstAndMore(first string, n int) string {
	if n == 1 {
		return first
	}
	return fmt.Sprintf("%s and %d more", first, n-1)
}
