package plan

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
)

// share is a part of the model's bytes as people read it.
func (d *decider) share(t checkpoint.Tensor) string {
	return fmt.Sprintf("%.1f%% of the bytes", percent(t.Size, d.total))
}

func percent(part, whole int64) float64 { return 100 * float64(part) / float64(max(whole, 1)) }

// isMatrices reports whether a tensor is several matrices in one, as those of a
// mixture of experts are stored.
func isMatrices(t checkpoint.Tensor) bool {
	return len(t.Shape) == 3 && codec.Numbers(t.Dtype) && !slices.ContainsFunc(t.Shape, func(n int) bool { return n < 2 })
}

// expertNames are parts of the names of a mixture's experts.
var expertNames = regexp.MustCompile(`(?i)(^|[._])(experts?|moe)[._]`)

// banks reports whether the layout has quantized matrices in one tensor, as ComfyUI's
// has them; the reference has none.
func (d *decider) banks() bool { return d.Layout == layout.Comfy && !d.exact() }

// isBank reports whether a weight is the experts of a layer, that the layout can hold.
func (d *decider) isBank(t checkpoint.Tensor) bool {
	return d.banks() && isMatrices(t) && expertNames.MatchString(t.Name)
}

// fused says why matrices in one tensor are kept, and how much that is.
func (d *decider) fused(t checkpoint.Tensor) string {
	why := "3 dimensions, which are not quantized; " + d.share(t)
	if expertNames.MatchString(t.Name) {
		why = "fused experts: " + why
	}
	return why
}

// noWeight says why a tensor that is not called a weight is kept.
func (d *decider) noWeight(s *Step) string {
	if !isMatrices(s.Source) {
		return "not a weight"
	}
	s.listed = true
	return d.fused(s.Source)
}

// IsListed reports whether a plan shows a step: that of a weight, or of one that
// lacks the name.
func (s *Step) IsListed() bool { return s.listed || s.Layer != s.Source.Name }

// mostKept is the share of a model's bytes that may stay as they are without a
// word.
const mostKept = 1.0 / 3

// notesOnKept says in one line how much is not quantized, and the main reasons.
func notesOnKept(steps []Step) []string {
	var kept, all int64
	reasons := map[string]int64{}
	for i := range steps {
		s := &steps[i]
		if s.Action == Drop {
			continue
		}
		all += s.Source.Size
		if !s.quantized() {
			kept += s.Source.Size
			reasons[s.shortReason()] += s.Source.Size
		}
	}
	if kept == all || float64(kept) <= mostKept*float64(all) {
		return nil
	}
	var texts []string
	for _, why := range slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		// fields, which stand in backquotes, before words, as the flags that the command says
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), cmp.Compare(strings.ReplaceAll(a, "`", " "), strings.ReplaceAll(b, "`", " ")))
	}) {
		if part := percent(reasons[why], all); part >= 1 && len(texts) < 3 {
			texts = append(texts, fmt.Sprintf("%.0f%% %s", part, why))
		}
	}
	return []string{fmt.Sprintf("%.0f%% of the bytes stay unquantized: %s", percent(kept, all), strings.Join(texts, ", "))}
}

// shortReason is a reason without what differs from one tensor to the next.
func (s *Step) shortReason() string {
	why, _, _ := strings.Cut(s.Reason, ";")
	why, _, _ = strings.Cut(why, ": 3 dimensions")
	return why
}
