package verify

import (
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// merge compares with sources into which adapters are merged, if there are any.
func merge(v *report.Verification, adapters *lora.Set, parts []*verification, o Options) error {
	if len(o.Lora) == 0 {
		return nil
	}
	if o.Source == nil {
		return usage.Errorf("`Lora` is merged into what the output is compared with: name the `Source`")
	}
	for _, part := range parts {
		tensors, _, err := plan.Inventory(part.sourceModel)
		if err == nil {
			part.merges, err = adapters.Patches(tensors, part.folder)
		}
		if err != nil {
			return err
		}
		part.holdFactors()
	}
	if len(parts) == 0 {
		return nil // which is said
	}
	notes, err := adapters.Unmatched(o.LoraPartial)
	v.Notes = append(v.Notes, notes...)
	return err
}

// holdFactors remembers the most that factors of one tensor take.
func (v *verification) holdFactors() {
	for _, p := range v.merges {
		v.factors = max(v.factors, p.Held())
	}
}
