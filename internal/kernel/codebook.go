package kernel

import "math"

// BookLevels is the most levels of a codebook that kernels work with.
const BookLevels = 16

// bookSet adds up several groups at a time, one in each lane. A set without one
// leaves groups to be added up one by one.
type bookSet struct {
	groups int
	sums   func(sums []float32, counts []uint32, x, middles []float32)
	means  func(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32)
}

// BookGroups returns how many groups [BookSums] takes at a time, 0 if none.
func BookGroups() int {
	if active.books == nil {
		return 0
	}
	return active.books.groups
}

// BookSums adds each value of rows x [n, groups] to the sum of its level, sums
// [16, groups], in ascending order of rows, and counts in counts [15, groups]
// the values above each of middles [15, groups], which ascend in a lane. The
// level of a value is the number of middles below it; those that do not count
// are infinite. Sums begin with zero.
func BookSums(sums []float32, counts []uint32, x, middles []float32) {
	active.books.sums(sums, counts, x, middles)
}

// BookMeans moves levels [16, groups] of groups of n values to the means of the
// values that [BookSums] has found for them; those without any stay. It sets
// middles to those of each level and the next, fl(fl(sum)·0.5), and returns bits
// for the groups in which a level has moved, and in which they ascend no longer.
// Levels that do not count are infinite.
func BookMeans(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
	return active.books.means(levels, middles, sums, counts, n)
}

func bookMeans(levels, middles, sums []float32, counts []uint32, n int) (moved, unordered uint32) {
	groups := len(levels) / BookLevels
	for g := range groups {
		from := uint32(n) // values that are not below the level
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

// BookCodes sets codes to the number of middles, of which there are 15 that
// ascend, below each value; none is below NaN.
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

// FitBooks moves the scale of each group of 16 values, twice, to that which fits
// the values best to what they have been given of 16 levels: the level that has as
// many edges below it as the value, divided by the scale, has below. reach becomes
// the greatest magnitude that the levels of a group have with its scale.
//
// Levels and edges ascend; there is an edge less. Values are finite, and scales at
// least 1e-8, and so they stay. Sums are of eight lanes of two products each, one
// after the other, and nothing is fused.
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
