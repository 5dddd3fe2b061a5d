package engine

import (
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Transcoding moves a model's layers to another layout, as its plan says.
type Transcoding struct {
	*Quantization
	named  func(layer string) string
	Losses map[string][]Sums // by layer whose scales are rounded, and by tile
}

// NewTranscoding prepares to move a model's layers. named returns what a report calls a
// layer.
func NewTranscoding(q *Quantization, named func(layer string) string) *Transcoding {
	return &Transcoding{q, named, map[string][]Sums{}}
}

// MoveAll yields the tasks of one model after another.
func MoveAll(all []*Transcoding, yield func(stream.Task) bool) {
	for _, t := range all {
		if !t.tasks(yield) {
			return
		}
	}
}

func (t *Transcoding) tasks(yield func(stream.Task) bool) bool {
	if !writeLiterals(t.Plan.Literals, t.Writers, yield) {
		return false
	}
	for i := range t.Plan.Steps {
		s := &t.Plan.Steps[i]
		if s.Move == nil && !t.step(s, yield) || s.Move != nil && !t.move(s, yield) {
			return false
		}
	}
	return t.schedule.flush(yield) // of layers that are quantized again
}

// move yields a task for every area of a layer.
func (t *Transcoding) move(s *plan.Step, yield func(stream.Task) bool) bool {
	want := moveValues
	if s.Move.Transposes() && !s.Move.Rounds { // with Rounds, the sums of errors must not depend on the memory limit
		want = max(want, MaxTile(t.Resources))
	}
	areas := s.Move.Areas(s.Move.Area(want, MaxTile(t.Resources)))
	var found []Sums
	if s.Move.Rounds {
		found = make([]Sums, len(areas))
		t.Losses[t.named(s.Layer)] = found
	}
	for i, a := range areas {
		if !yield(stream.Task{Bytes: int64(a.Values()), Do: func(w *stream.Worker) error {
			m, err := t.shared(w, s)
			if err != nil {
				return err
			}
			src, err := t.readParts(w, s, m, a)
			if err != nil {
				return err
			}
			dst := t.writeParts(w, s, m, src, a)
			if err := t.checkFinite(w, s, m, src, a); err != nil || found == nil {
				return err
			}
			found[i] = loss(w, m, src, dst, a)
			return t.explainLoss(s, found[i])
		}}) {
			return false
		}
	}
	return true
}

// moveValues is how many values of a layer are moved at a time: enough for scales that
// are stored column by column to be written in runs of a reasonable length.
const moveValues = 512 << 10

// shared returns the step's move, which holds what every area takes all of.
func (t *Transcoding) shared(w *stream.Worker, s *plan.Step) (*codec.Move, error) {
	indices, held := s.Move.WithShared()
	if len(indices) == 0 {
		return s.Move, nil
	}
	return stream.Shared(w, s, func() (*codec.Move, error) {
		src, err := readWhole(t.Source, s.From, indices)
		if err != nil {
			return nil, err
		}
		m, err := held(src)
		if err != nil {
			return nil, sharedError(t.Source, s.From, err)
		}
		return m, nil
	})
}

func (t *Transcoding) readParts(w *stream.Worker, s *plan.Step, m *codec.Move, a tile.Area) ([][]byte, error) {
	src := make([][]byte, len(s.From.Parts))
	for i, part := range s.From.Parts {
		spans := m.Needed(i, a)
		src[i] = w.Bytes(i, tile.SpanBytes(spans))
		if err := readSpans(t.Source, part, spans, src[i]); err != nil {
			return nil, err
		}
		w.Done(int64(len(src[i])))
	}
	return src, nil
}

func (t *Transcoding) writeParts(w *stream.Worker, s *plan.Step, m *codec.Move, src [][]byte, a tile.Area) [][]byte {
	dst := make([][]byte, len(s.Parts))
	for i, part := range s.Parts {
		dst[i] = w.Scatter(t.Writers[part.File], part.Tensor, m.Written(i, a))
	}
	m.Bytes(dst, src, a, &w.Scratch)
	return dst
}

// checkFinite is checkRestored for an area whose stored bytes are at hand.
func (t *Transcoding) checkFinite(w *stream.Worker, s *plan.Step, m *codec.Move, src [][]byte, a tile.Area) error {
	if surelyFinite(s.From.Parts, src) {
		return nil
	}
	values := w.Floats(0, a.Values())
	m.Values(values, m.From, src, a, &w.Scratch)
	return checkRestored(t.Source, s.From, a, values, max(s.Source.Numel()/s.Source.Shape[0], 1))
}

// loss compares the values that both layers decode to.
func loss(w *stream.Worker, m *codec.Move, src, dst [][]byte, a tile.Area) Sums {
	want, got := w.Floats(0, a.Values()), w.Floats(1, a.Values())
	m.Values(want, m.From, src, a, &w.Scratch)
	m.Values(got, m.To, m.Readable(dst, src, a, &w.Scratch), a, &w.Scratch)
	s := Sums{Nonfinite: -1}
	s.Measure(want, got)
	return s
}

// explainLoss returns an error if the dtype of the new scales has made some of them
// infinite.
func (t *Transcoding) explainLoss(s *plan.Step, found Sums) error {
	if FiniteOrNil(found.Errors) != nil || FiniteOrNil(found.Squares) == nil {
		return nil
	}
	return usage.SourceErrorf("%s: layer %s: its scales are too large for %s: `ScaleDtype` f32 holds them",
		t.Source.File(s.From.Parts[0]), s.Layer, s.Move.To.Tensors()[1].Dtype)
}
