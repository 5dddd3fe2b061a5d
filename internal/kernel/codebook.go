package kernel

import "math"

// BookLevels is the most levels that a codebook may have in these kernels.
const BookLevels = 16

// bookSet fits the codebooks of several groups at a time, one in each lane. With a set
// that has none, groups are fitted one by one.
type bookSet struct {
	groups int
	sums   func(sums []float32, counts []uint32, x, middles []float32)
	means  func(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32)
}

// BookGroups returns how many groups [BookSums] takes at a time, 0 if the set has no
// bookSet.
func BookGroups() int {
	if active.books == nil {
		return 0
	}
	return active.books.groups
}

// BookSums adds each value of x [n, groups] to the sum of its level in sums [16,
// groups], in the order of rows, and counts in counts [15, groups] the values above
// each of middles [15, groups]. Middles ascend within a group; the level of a value is
// the number of middles below it. Unused middles are +Inf. Sums must be zero at the
// start.
func BookSums(sums []float32, counts []uint32, x, middles []float32) {
	active.books.sums(sums, counts, x, middles)
}

// BookMeans moves each of levels [16, groups] to the mean of its values, as found by
// [BookSums] for groups of n values. Levels without values stay. It sets middles to the
// midpoints of neighbouring levels, fl(fl(sum)·0.5), and returns one bit for each group
// in which a level has moved, and for each in which levels no longer ascend. Unused
// levels are +Inf.
func BookMeans(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
	return active.books.means(levels, middles, sums, counts, n)
}

func bookMeans(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
	groups := len(levels) / BookLevels
	for g := range groups {
		from := uint32(n) // how many values are not below the level
		for at := g; at < len(levels); at += groups {
			above := uint32(0)
			if at < len(middles) {
				above = counts[at]
			}
			if cell := from - above; cell > 0 {
				mean := sums[at] / float32(cell)
				if math.Float32bits(mean) != math.Float32bits(levels[at]) {
					levels[at], moved = mean, moved|1<<g
				}
			}
			if before := at - groups; before >= 0 {
				if !(levels[before] <= levels[at]) {
					unordered |= 1 << g
				}
				middles[before] = float32(levels[before]+levels[at]) * 0.5
			}
			from = above
		}
	}
	return moved, unordered
}

// BookCodes sets each code to the number of middles below the value; NaN gets 0. There
// are 15 middles, which ascend.
func BookCodes(codes []uint16, x, middles []float32) { active.bookCodes(codes, x, middles) }

func bookCodes(codes []uint16, x, middles []float32) {
	middles = middles[:BookLevels-1]
	for i, v := range x {
		code := uint16(0)
		for _, m := range middles {
			if m < v {
				code++
			}
		}
		codes[i] = code
	}
}

// FitGroup is how many values share a scale in [FitBooks].
const FitGroup = 16

// FitBooks fits the scale of each group of 16 values by least squares to the values'
// current levels, then finds the levels anew, twice. The level of a value is the one
// with as many edges below it as the value divided by the scale has. reach is set to
// the greatest magnitude of a group's levels times its scale.
//
// There are 16 levels and 15 edges, both ascending. Values must be finite, and scales
// at least 1e-8, as they remain. Sums have eight lanes of two products each, added in
// order; nothing is fused.
func FitBooks(scales, reach, x, levels, edges []float32) {
	active.fitBooks(scales, reach, x, levels, edges)
}

func fitBooks(scales, reach, x, levels, edges []float32) {
	var near [FitGroup]float32
	for g, scale := range scales {
		group := (*[FitGroup]float32)(x[g*FitGroup:])
		nearest(&near, group, scale, levels, edges)
		for range 2 {
			scale = max(fitDot(group, &near)/max(fitDot(&near, &near), 1e-8), 1e-8)
			nearest(&near, group, scale, levels, edges)
		}
		lo, hi := minMax(near[:])
		scales[g], reach[g] = scale, float32(max(hi, -lo)*scale)
	}
}

func nearest(near, x *[FitGroup]float32, scale float32, levels, edges []float32) {
	for i, v := range x {
		v /= scale
		at := 0
		for at < len(edges) && edges[at] < v {
			at++
		}
		near[i] = levels[at]
	}
}

func fitDot(x, y *[FitGroup]float32) (sum float32) {
	for i := range FitGroup / 2 {
		sum += float32(x[i]*y[i]) + float32(x[i+8]*y[i+8])
	}
	return sum
}
