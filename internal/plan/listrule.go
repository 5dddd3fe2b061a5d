package plan

import (
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// ListRule is a rule of a layer config or of a convert_to_quant preset, as opposed to
// one of --set: it never forces, and a weight that cannot be quantized is kept. The
// first rule that matches counts, after --keep, --only and --set.
type ListRule struct {
	Why   string // where it comes from, in a user's words
	Match func(t checkpoint.Tensor) (bool, error)
	// Drop leaves the tensor out, be it a weight or not; Keep leaves it as it is.
	Drop, Keep bool
	Over       storage.Settings
	// Label is what the layer is called in place of what it is, nil for that.
	Label *codec.Label
	// Refuse says why no such layer can be made, "" where it can.
	Refuse string
	// Must makes it an error that the weight is of a dtype that is not quantized.
	Must bool
}

// listRule returns the first rule that matches a tensor, nil if none does.
func (d *decider) listRule(t checkpoint.Tensor, isWeight bool) (*ListRule, error) {
	for i := range d.ListRules {
		s := &d.ListRules[i]
		if !isWeight && !s.Drop {
			continue
		}
		found, err := s.Match(t)
		if err != nil {
			return nil, usage.Wrap(err)
		}
		if found {
			return s, nil
		}
	}
	return nil, nil
}

// rule is what it says, as a --set would, or why the weight is kept.
func (s *ListRule) rule() (rule *Rule, keep string) {
	if s.Keep {
		return nil, s.Why
	}
	return &Rule{Text: s.Why, Over: s.Over}, ""
}

// check refuses what the rule asked for and cannot be had.
func (s *ListRule) check(step *Step) error {
	t := step.Source
	switch {
	case step.Action == Quantize && s.Refuse != "":
		return usage.Errorf("layer %s (%s): %s", step.Layer, s.Why, s.Refuse)
	case !s.Keep && s.Must && len(t.Shape) == 2 && t.Numel() > 0 && !codec.Floats(t.Dtype):
		return usage.SourceErrorf("tensor %s (%s): %s, which is no F32, BF16 or F16, is not quantized", t.Name, s.Why, t.Dtype)
	}
	if s.Label != nil && step.Action == Quantize {
		step.Options, step.Header = s.Label.Relabel(step.Options)
	}
	return nil
}

// KeptDtype is the dtype to which a weight that is not quantized is cast, its own
// where it is not.
type KeptDtype func(t checkpoint.Tensor) safetensors.Dtype

// castToBF16 is what convert_to_quant does where nothing else is said.
func castToBF16(checkpoint.Tensor) safetensors.Dtype { return safetensors.BF16 }
