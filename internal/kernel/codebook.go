package kernel

// BookLevels is the most levels of a codebook that kernels work with.
const BookLevels = 16

// bookSet adds up several groups at a time, one in each lane. A set without one
// leaves groups to be added up one by one.
type bookSet struct {
	groups int
	sums   func(sums []float32, counts []uint32, x, middles []float32)
}

// BookGroups returns how many groups [BookSums] takes at a time, 0 if none.
func BookGroups() int {
	if active.books == nil {
		return 0
	}
	return active.books.groups
}

// BookSums adds each value of rows x [n, groups] to the sum of its level, sums
// [16, groups], in ascending order of rows, and counts in counts [16, groups]
// the values above each of middles [15, groups], which ascend in a lane. The
// level of a value is the number of middles below it; those that do not count
// are infinite. The last row of counts is ones. Sums begin with zero.
func BookSums(sums []float32, counts []uint32, x, middles []float32) {
	active.books.sums(sums, counts, x, middles)
}

// BookCodes sets codes to the number of middles, of which there are 15, below
// each value; none is below NaN.
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
