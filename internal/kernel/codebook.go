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
