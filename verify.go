package tensorpress

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/stream"
)

// VerifyOptions say what an output is held against.
type VerifyOptions struct {
	Source    string   // the checkpoint it was made from; "" for none
	For       string   // an application that must load it; "" for none
	MaxRelMSE *float64 // a layer with a greater error is a problem
	Resources
}

// Verification is what [Verify] found.
type Verification struct {
	OK       bool         `json:"ok"`
	Problems []Problem    `json:"problems"`
	Layers   []LayerError `json:"layers"` // empty without a source
	Total    TotalError   `json:"total"`
}

// Problem is one thing that is wrong.
type Problem struct {
	Tensor  string `json:"tensor"` // "" for the checkpoint as a whole
	Problem string `json:"problem"`
}

// TotalError compares weights W with what is stored, Ŵ: rel_mse is
// Σ(W-Ŵ)² / ΣW², in double precision; sqnr_db is -10·log10 of it. nil where
// there is no source or the figure is not finite.
type TotalError struct {
	RelMSE *float64 `json:"rel_mse"`
	SQNR   *float64 `json:"sqnr_db"`
}

// LayerError is the error of one layer.
type LayerError struct {
	Name string `json:"name"`
	TotalError
	MaxAbs *float64 `json:"max_abs"` // nil where it is not finite
}

// Verify reads a whole checkpoint: is it sound, does every layer decode, would
// an application load it, and how far are its weights from a source's. What it
// finds is in the result; the error is for what kept it from looking.
func Verify(ctx context.Context, path string, o VerifyOptions) (*Verification, error) {
	v := &verification{VerifyOptions: o, Verification: &Verification{Problems: []Problem{}, Layers: []LayerError{}}}
	defer v.close()
	if err := v.openOthers(); err != nil {
		return nil, err
	}
	err := v.open(path)
	if errors.Is(err, checkpoint.ErrSource) { // what verify is there to find
		v.problem("", "%v", err)
		return v.Verification, nil
	}
	if err != nil {
		return nil, err
	}
	if err := stream.Run(ctx, o.threads(), v.tasks, o.progress(bytesOf(v.output.Tensors))); err != nil {
		return nil, err
	}
	v.conclude()
	return v.Verification, nil
}

// verification is one under way.
type verification struct {
	VerifyOptions
	*Verification
	output, source *checkpoint.Checkpoint
	model          *layout.Model
	app            *app.App
	checks         []*check
}

func (v *verification) problem(tensor, format string, args ...any) {
	v.Problems = append(v.Problems, Problem{tensor, fmt.Sprintf(format, args...)})
}

// openOthers opens what the output is held against.
func (v *verification) openOthers() (err error) {
	if v.For != "" {
		if v.app, err = app.ByName(v.For); err != nil {
			return err
		}
	}
	if v.Source != "" {
		if v.source, err = checkpoint.Open(v.Source); err != nil {
			return fmt.Errorf("--source: %w", err)
		}
	}
	return nil
}

func (v *verification) open(path string) (err error) {
	if v.output, err = checkpoint.Open(path); err != nil {
		return err
	}
	if v.model, err = layout.Read(v.output, v.source); err != nil {
		return &sourceError{err}
	}
	return nil
}

func (v *verification) close() {
	for _, c := range []*checkpoint.Checkpoint{v.output, v.source} {
		if c != nil {
			c.Close()
		}
	}
}

// tasks looks at names and shapes first, then yields the reading of all data.
func (v *verification) tasks(yield func(stream.Task) bool) {
	v.checkStructure()
	for _, l := range v.model.Layers {
		if l.Err != nil {
			v.problem(layout.WeightName(l.Name), "%v", l.Err)
			continue
		}
		if !v.newLayerCheck(l).tasks(yield) {
			return
		}
	}
	for _, t := range v.model.Plain {
		if !v.newCopyCheck(t).tasks(yield) {
			return
		}
	}
}

// conclude puts together what the tiles found, in order.
func (v *verification) conclude() {
	var total sums
	for _, c := range v.checks {
		found := c.join()
		v.Problems = append(v.Problems, found.problems(c)...)
		if c.layer == nil || c.source == nil {
			continue
		}
		e := LayerError{c.layer.Name, found.error(), finiteOrNil(found.maxAbs)}
		v.Layers = append(v.Layers, e)
		if v.MaxRelMSE != nil && (e.RelMSE == nil || *e.RelMSE > *v.MaxRelMSE) {
			v.problem(layout.WeightName(c.layer.Name), "rel_mse is %s, above %g", figure(e.RelMSE), *v.MaxRelMSE)
		}
		total.add(found)
	}
	if len(v.Layers) > 0 {
		v.Total = total.error()
	}
	v.OK = len(v.Problems) == 0
}

func figure(x *float64) string {
	if x == nil {
		return "not finite"
	}
	return fmt.Sprintf("%.3g", *x)
}

// sums are what errors are computed from; they are added in a fixed order, so
// that they do not depend on threads.
type sums struct {
	squares, errors float64 // ΣW², Σ(W-Ŵ)²
	maxAbs          float64
	nonfinite       int // index of the first value that decodes to no number, -1
	differs         bool
}

func (s *sums) add(t sums) {
	s.squares += t.squares
	s.errors += t.errors
	s.maxAbs = math.Max(s.maxAbs, t.maxAbs)
	if s.nonfinite < 0 {
		s.nonfinite = t.nonfinite
	}
	s.differs = s.differs || t.differs
}

func (s *sums) error() TotalError {
	rel := s.errors / s.squares
	if s.errors == 0 {
		rel = 0
	}
	return TotalError{finiteOrNil(rel), finiteOrNil(-10 * math.Log10(rel))}
}

func finiteOrNil(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}
