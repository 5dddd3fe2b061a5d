package budget

import (
	"cmp"
	"math"
	"slices"
)

// search finds the best choice within a budget. It begins with the relaxed problem, in
// which one layer may be between two choices: its solution names a price for a byte, at
// which almost every layer's choice is clear. What a layer's other choice costs at that
// price, its excess, bounds from below what any solution with it loses more than the
// relaxed one. Layers are then opened one after the other, those with the least excess
// first, and all combinations of their choices are kept that may still lead to something
// better than the best known: of two combinations, the one that is larger and loses no
// less is dropped. The search is over when the next layer's excess exceeds what there is
// to gain.
type search struct {
	*Problem
	budget  int64
	relaxed []int   // places of the relaxed solution, the split layer at its smaller choice
	bytes   int64   // of that
	loss    int64   // of that, in units
	price   float64 // units for a byte
	bound   float64 // of the relaxed problem, in units

	best      int64 // loss of the best that is known
	places    []int // of it, unless it is a combination
	found     int32 // node of the best combination, -1 where places are the best
	nodes     []node
	forgotten float64 // least bound of combinations that were dropped for lack of room
	// buffers that are used again: the combinations before a layer is opened, those with
	// one choice of it, and those with several, by turns
	before, made []combination
	merged       [2][]combination
}

// combination is a choice for the layers that are open; all others have that of the
// relaxed solution.
type combination struct {
	bytes, loss int64
	node        int32
}

// node says how a combination differs from another.
type node struct {
	from         int32 // -1 for the relaxed solution
	layer, place int32
}

const (
	// mostCombinations and mostNodes bound the time and the memory of a search, to about a
	// tenth of a second and 15 MB; where the first is reached, the combinations of the
	// least promise are dropped, where the second is, the search is over. The solution then
	// says how far from the best it may be.
	mostCombinations = 1 << 13
	mostNodes        = 1 << 20
)

func newSearch(p *Problem, budget int64) *search {
	s := &search{Problem: p, budget: budget, relaxed: make([]int, len(p.kept)), found: -1, forgotten: math.Inf(1)}
	for _, kept := range p.kept {
		s.bytes, s.loss = s.bytes+kept[0].bytes, s.loss+kept[0].loss
	}
	s.relax()
	s.round()
	return s
}

// relax solves the relaxed problem: the best steps, as far as they fit, and a part of the
// next.
func (s *search) relax() {
	for _, step := range s.steps {
		if s.bytes+step.bytes > s.budget {
			s.price = step.rate()
			break
		}
		s.relaxed[step.layer] = step.to
		s.bytes, s.loss = s.bytes+step.bytes, s.loss-step.gain
	}
	s.bound = s.boundOf(combination{bytes: s.bytes, loss: s.loss})
}

// round makes the first known solution of the relaxed one: all further steps that fit.
func (s *search) round() {
	s.places, s.best = slices.Clone(s.relaxed), s.loss
	free := s.budget - s.bytes
	for _, step := range s.steps {
		from := s.places[step.layer]
		if from >= step.to {
			continue
		}
		was, is := s.kept[step.layer][from], s.kept[step.layer][step.to]
		if bytes := is.bytes - was.bytes; bytes <= free {
			s.places[step.layer] = step.to
			free, s.best = free-bytes, s.best-(was.loss-is.loss)
		}
	}
}

// excess is what a choice costs more than that of the relaxed solution, at the price.
func (s *search) excess(layer, place int) float64 {
	is, was := s.kept[layer][place], s.kept[layer][s.relaxed[layer]]
	return float64(is.loss-was.loss) + float64(s.price*float64(is.bytes-was.bytes))
}

// hopeless reports whether nothing of that bound can be better than the best known:
// losses are whole numbers.
func (s *search) hopeless(bound float64) bool { return bound > float64(s.best)-0.9 }

// run opens layers until no other choice can be better.
func (s *search) run() *Solution {
	type opening struct {
		layer  int
		excess float64
	}
	var order []opening
	for layer, kept := range s.kept {
		least := math.Inf(1)
		for place := range kept {
			if place != s.relaxed[layer] {
				least = math.Min(least, s.excess(layer, place))
			}
		}
		order = append(order, opening{layer, least})
	}
	slices.SortStableFunc(order, func(a, b opening) int { return cmp.Compare(a.excess, b.excess) })
	all := []combination{{s.bytes, s.loss, -1}}
	for i, o := range order {
		if s.hopeless(s.bound+o.excess) || len(all) == 0 {
			break
		}
		if len(s.nodes) >= mostNodes {
			for _, c := range all {
				s.forgotten = math.Min(s.forgotten, s.boundOf(c)+o.excess)
			}
			break
		}
		next := math.Inf(1)
		if i+1 < len(order) {
			next = order[i+1].excess
		}
		all = s.open(all, o.layer, next)
	}
	return s.solve()
}

// open returns the combinations with every choice of one more layer that may lead to
// something better. They have to be changed for that, as they are known themselves from
// here on: by the excess of a layer that is opened later, which is at least next.
func (s *search) open(all []combination, layer int, next float64) []combination {
	all = append(s.before[:0], all...)
	s.before = all
	merged := all // with the choice of the relaxed solution
	for place := range s.kept[layer] {
		if place == s.relaxed[layer] || s.hopeless(s.bound+s.excess(layer, place)) {
			continue
		}
		merged = s.merge(merged, s.with(all, layer, place))
	}
	// the last that fits loses least of all that do
	i, _ := slices.BinarySearchFunc(merged, s.budget+1, func(c combination, bytes int64) int { return cmp.Compare(c.bytes, bytes) })
	if i > 0 && merged[i-1].loss < s.best {
		s.best, s.found = merged[i-1].loss, merged[i-1].node
	}
	merged = slices.DeleteFunc(merged, func(c combination) bool { return s.hopeless(s.boundOf(c) + next) })
	return s.fewer(merged, next)
}

// boundOf bounds what a combination leads to.
func (s *search) boundOf(c combination) float64 {
	return float64(c.loss) - float64(s.price*float64(s.budget-c.bytes)) // not fused, to be the same everywhere
}

// with returns the combinations with another choice of a layer, but for those that are
// hopeless.
func (s *search) with(all []combination, layer, place int) []combination {
	is, was := s.kept[layer][place], s.kept[layer][s.relaxed[layer]]
	made := s.made[:0]
	for _, c := range all {
		one := combination{c.bytes + is.bytes - was.bytes, c.loss + is.loss - was.loss, int32(len(s.nodes))}
		if s.hopeless(s.boundOf(one)) {
			continue
		}
		s.nodes = append(s.nodes, node{c.node, int32(layer), int32(place)})
		made = append(made, one)
	}
	s.made = made
	return made
}

// merge joins two lists, ascending by bytes and descending by loss, to such a list,
// which is valid until the call after next.
func (s *search) merge(a, b []combination) []combination {
	merged := slices.Grow(s.merged[0][:0], len(a)+len(b))
	for len(a)+len(b) > 0 {
		var next combination
		if len(b) == 0 || len(a) > 0 && (a[0].bytes < b[0].bytes || a[0].bytes == b[0].bytes && a[0].loss <= b[0].loss) {
			next, a = a[0], a[1:]
		} else {
			next, b = b[0], b[1:]
		}
		if n := len(merged); n == 0 || next.loss < merged[n-1].loss {
			merged = append(merged, next)
		}
	}
	s.merged[0], s.merged[1] = s.merged[1], merged
	return merged
}

// fewer drops the combinations of the least promise where there are too many.
func (s *search) fewer(all []combination, next float64) []combination {
	if len(all) <= mostCombinations {
		return all
	}
	bounds := make([]float64, len(all))
	for i, c := range all {
		bounds[i] = s.boundOf(c)
	}
	slices.Sort(bounds)
	limit := bounds[mostCombinations/2]
	s.forgotten = math.Min(s.forgotten, limit+next)
	return slices.DeleteFunc(all, func(c combination) bool { return s.boundOf(c) >= limit })
}

// solve returns the best that was found.
func (s *search) solve() *Solution {
	places := s.places
	if s.found >= 0 {
		places = slices.Clone(s.relaxed)
	}
	for at := s.found; at >= 0; at = s.nodes[at].from {
		places[s.nodes[at].layer] = int(s.nodes[at].place)
	}
	solution := s.solution(places)
	if !s.hopeless(s.forgotten) && s.best > 0 {
		solution.Gap = (float64(s.best) - math.Max(s.forgotten, s.bound)) / float64(s.best)
	}
	return solution
}
