// Package budget chooses an option for each of many layers, so that all of them together
// fit a size and lose least. It knows nothing of weights.
package budget

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Option is one way to store a layer.
type Option struct {
	Bytes int64
	Loss  float64 // not negative, and finite
}

// Problem is a list of layers with the options of each.
type Problem struct {
	layers [][]Option
	kept   [][]choice // of each layer, those that no other is at least as good as, ascending by bytes
	steps  []step     // from the smallest choice to the one that loses least, the best first
	unit   float64    // losses are whole numbers of it
}

// choice is an option that may be picked.
type choice struct {
	option int
	bytes  int64
	loss   int64 // in units
}

// step is the way of one layer from a choice to the next on the convex hull of its
// choices.
type step struct {
	layer, from, to int
	bytes, gain     int64
}

// rate is what the step gains for each byte.
func (s step) rate() float64 { return float64(s.gain) / float64(s.bytes) }

// units is into how many parts the greatest loss of all is divided: so few that sums and
// bounds are exact to a part in double precision, and so many that nothing that anybody
// could measure is lost.
const units = 1 << 44

// New prepares a problem. Every layer has an option.
func New(layers [][]Option) *Problem {
	p := &Problem{layers: layers, kept: make([][]choice, len(layers))}
	most := 0.0
	for _, options := range layers {
		worst := 0.0
		for _, o := range options {
			worst = math.Max(worst, o.Loss)
		}
		most += worst
	}
	if p.unit = most / units; p.unit == 0 {
		p.unit = 1
	}
	for i, options := range layers {
		p.kept[i] = p.undominated(options)
		p.steps = append(p.steps, hull(i, p.kept[i])...)
	}
	slices.SortStableFunc(p.steps, func(a, b step) int { return cmp.Compare(b.rate(), a.rate()) })
	return p
}

// undominated returns the options of which none is both smaller and no worse.
func (p *Problem) undominated(options []Option) (kept []choice) {
	all := make([]choice, len(options))
	for i, o := range options {
		all[i] = choice{i, o.Bytes, int64(math.Round(o.Loss / p.unit))}
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.loss, b.loss))
	})
	for _, c := range all {
		if len(kept) == 0 || c.loss < kept[len(kept)-1].loss {
			kept = append(kept, c)
		}
	}
	return kept
}

// hull returns the steps along the convex hull of a layer's choices, whose rates fall.
func hull(layer int, kept []choice) (steps []step) {
	for to := 1; to < len(kept); to++ {
		s := step{layer, to - 1, to, kept[to].bytes - kept[to-1].bytes, kept[to-1].loss - kept[to].loss}
		for len(steps) > 0 && steps[len(steps)-1].rate() <= s.rate() {
			last := steps[len(steps)-1]
			s = step{layer, last.from, to, last.bytes + s.bytes, last.gain + s.gain}
			steps = steps[:len(steps)-1]
		}
		steps = append(steps, s)
	}
	return steps
}

// Solution is a choice for every layer.
type Solution struct {
	Picks []int // the index of each layer's option
	Bytes int64
	Loss  float64
	// Gap is how much less the best choice might lose at most, as a part of Loss; 0 where
	// there is none that loses less.
	Gap float64
}

// solution sums up the places, among the kept choices, of what is picked.
func (p *Problem) solution(places []int) *Solution {
	s := &Solution{Picks: make([]int, len(places))}
	for i, place := range places {
		s.Picks[i] = p.kept[i][place].option
	}
	s.Bytes, s.Loss = p.Sum(s.Picks)
	return s
}

// Sum returns what the picked options take and lose together.
func (p *Problem) Sum(picks []int) (bytes int64, loss float64) {
	for i, pick := range picks {
		o := p.layers[i][pick]
		bytes, loss = bytes+o.Bytes, loss+o.Loss
	}
	return bytes, loss
}

// Smallest is the choice of the fewest bytes.
func (p *Problem) Smallest() *Solution { return p.solution(make([]int, len(p.kept))) }

// Best is the choice that loses least, with the fewest bytes for that.
func (p *Problem) Best() *Solution {
	places := make([]int, len(p.kept))
	for i, kept := range p.kept {
		places[i] = len(kept) - 1
	}
	return p.solution(places)
}

// TooSmallError says that nothing fits a budget.
type TooSmallError struct{ Budget, Least int64 }

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("a budget of %d bytes is too small: the least is %d", e.Budget, e.Least)
}

// Solve returns the choice that loses least within that many bytes. The error is a
// *[TooSmallError].
func (p *Problem) Solve(bytes int64) (*Solution, error) {
	if least := p.Smallest(); least.Bytes > bytes {
		return nil, &TooSmallError{bytes, least.Bytes}
	}
	if best := p.Best(); best.Bytes <= bytes {
		return best, nil
	}
	return newSearch(p, bytes).run(), nil
}

// Point is a choice on the frontier.
type Point struct {
	Bytes int64
	Loss  float64
}

// Frontier returns choices from the smallest to the one that loses least, such that no
// mixture of two choices is better than those between them: about as many as are asked
// for, at even distances in bytes.
func (p *Problem) Frontier(most int) []Point {
	places := make([]int, len(p.kept))
	at := p.Smallest()
	points, end := []Point{{at.Bytes, at.Loss}}, p.Best().Bytes
	distance := max((end-at.Bytes)/int64(max(most-1, 1)), 1)
	bytes, loss := at.Bytes, at.Loss
	for i, s := range p.steps {
		was, is := p.option(s.layer, places[s.layer]), p.option(s.layer, s.to)
		places[s.layer] = s.to
		bytes, loss = bytes+s.bytes, loss+is.Loss-was.Loss
		if last := points[len(points)-1].Bytes; bytes-last >= distance || i == len(p.steps)-1 {
			points = append(points, Point{bytes, math.Max(loss, 0)})
		}
	}
	return points
}

func (p *Problem) option(layer, place int) Option {
	return p.layers[layer][p.kept[layer][place].option]
}

// Beside returns the options of a layer that are next to one: the largest of the smaller
// ones, and the smallest of those that lose less; -1 for none.
func (p *Problem) Beside(layer, option int) (cheaper, better int) {
	kept, own := p.kept[layer], p.layers[layer][option]
	cheaper, better = -1, -1
	for _, c := range kept {
		if c.bytes < own.Bytes {
			cheaper = c.option
		}
		if o := p.layers[layer][c.option]; better < 0 && c.bytes > own.Bytes && o.Loss < own.Loss {
			better = c.option
		}
	}
	return cheaper, better
}
