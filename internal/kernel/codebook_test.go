package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBooks: a codebook would have other levels on another processor.
func TestBooks(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(11, 12))
		for _, n := range []int{16, 48, 512, 70_000} { // more than 16 bits count
			for _, levels := range []int{16, 2, 4} {
				if n > 512 && levels < 16 {
					break
				}
				testBookCodes(t, k, r, n+levels%3, levels)
				if k.books != nil {
					testBookSums(t, k.books, r, n, levels)
				}
			}
		}
	})
}

// randomMiddles ascend, with some equal and those beyond the levels infinite.
func randomMiddles(r *rand.Rand, levels int) []float32 {
	m := make([]float32, BookLevels-1)
	for i := range m {
		if m[i] = float32(math.Inf(1)); i < levels-1 {
			m[i] = float32(r.IntN(20)-10) / 8
		}
	}
	slices.Sort(m)
	return m
}

var awkwardValues = awkward()

// bookValue is often a middle itself.
func bookValue(r *rand.Rand) float32 {
	switch r.IntN(8) {
	case 0:
		return awkwardValues[r.IntN(len(awkwardValues))]
	case 1, 2:
		return float32(r.IntN(20)-10) / 8
	}
	return float32(r.NormFloat64())
}

func testBookCodes(t *testing.T, k *set, r *rand.Rand, n, levels int) {
	x, middles := make([]float32, n), randomMiddles(r, levels)
	for i := range x {
		x[i] = bookValue(r)
	}
	got, want := make([]uint16, n), make([]uint16, n)
	k.bookCodes(got, x, middles)
	bookCodes(want, x, middles)
	if !slices.Equal(got, want) {
		t.Fatalf("%d values, %d levels: codes %v, want %v", n, levels, got, want)
	}
}

func testBookSums(t *testing.T, b *bookSet, r *rand.Rand, n, levels int) {
	g := b.groups
	groups, rows := make([]float32, g*n), make([]float32, g*n)
	for i := range groups {
		groups[i] = bookValue(r)
	}
	for i, v := range groups {
		rows[i%n*g+i/n] = v
	}
	middles := make([]float32, (BookLevels-1)*g)
	sums, wantSums := make([]float32, BookLevels*g), make([]float32, BookLevels*g)
	counts, wantCounts := make([]uint32, (BookLevels-1)*g), make([]uint32, (BookLevels-1)*g)
	for lane := range g {
		m := randomMiddles(r, levels)
		for i, v := range m {
			middles[i*g+lane] = v
		}
		codes := make([]uint16, n)
		bookCodes(codes, groups[lane*n:(lane+1)*n], m)
		for i, c := range codes {
			wantSums[int(c)*g+lane] += groups[lane*n+i]
			for j := range int(c) {
				wantCounts[j*g+lane]++
			}
		}
	}
	b.sums(sums, counts, rows, middles)
	testBookMeans(t, b, r, n, levels, middles, sums, counts)
	sameValues(t, fmt.Sprintf("%d rows, %d levels: sums", n, levels), sums, wantSums)
	if !slices.Equal(counts, wantCounts) {
		t.Errorf("%d rows, %d levels: counts %v, want %v", n, levels, counts, wantCounts)
	}
}

// testBookMeans moves levels that are often the means already, or such that
// they change places.
func testBookMeans(t *testing.T, b *bookSet, r *rand.Rand, n, levels int, middles, sums []float32, counts []uint32) {
	all := make([]float32, BookLevels*b.groups)
	for i := range all {
		switch all[i] = bookValue(r); {
		case i/b.groups >= levels:
			all[i] = float32(math.Inf(1))
		case r.IntN(2) == 0: // where all values of the group are of this level
			all[i] = sums[i] / float32(n)
		}
	}
	gotMiddles, wantMiddles, want := slices.Clone(middles), slices.Clone(middles), slices.Clone(all)
	wantMoved, wantUnordered := bookMeans(want, wantMiddles, sums, counts, n)
	moved, unordered := b.means(all, gotMiddles, sums, counts, n)
	if moved != wantMoved || unordered != wantUnordered {
		t.Errorf("%d rows, %d levels: moved %b, unordered %b, want %b and %b", n, levels, moved, unordered, wantMoved, wantUnordered)
	}
	sameValues(t, fmt.Sprintf("%d rows, %d levels: levels", n, levels), all, want)
	sameValues(t, fmt.Sprintf("%d rows, %d levels: middles", n, levels), gotMiddles, wantMiddles)
}

// TestFitBooks: scales would depend on the processor.
func TestFitBooks(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(13, 14))
		for _, groups := range []int{0, 1, 2, 7, 40, 500} {
			levels, edges := make([]float32, BookLevels), make([]float32, BookLevels-1)
			for i := range levels {
				levels[i] = float32(r.NormFloat64())
			}
			slices.Sort(levels)
			if groups == 7 {
				levels[3], levels[4] = levels[5], levels[5]
			}
			for i := range edges {
				edges[i] = (levels[i] + levels[i+1]) / 2
			}
			x, scales, reach := make([]float32, FitGroup*groups), make([]float32, groups), make([]float32, groups)
			for i := range x {
				x[i] = float32(r.NormFloat64() * math.Pow(10, float64(r.IntN(9)-6)))
				if r.IntN(16) == 0 {
					x[i] = edges[r.IntN(len(edges))]
				}
			}
			for g := range scales {
				if group := x[g*FitGroup:][:FitGroup]; r.IntN(8) == 0 {
					clear(group)
				} else if r.IntN(8) == 0 {
					for i := range group {
						group[i] = -abs32(group[i]) * 1e-40
					}
				}
				scales[g] = max(abs32(x[g*FitGroup]), 1e-8)
			}
			wantScales, wantReach := slices.Clone(scales), slices.Clone(reach)
			fitBooks(wantScales, wantReach, x, levels, edges)
			k.fitBooks(scales, reach, x, levels, edges)
			sameValues(t, fmt.Sprintf("%d groups: scales", groups), scales, wantScales)
			sameValues(t, fmt.Sprintf("%d groups: reach", groups), reach, wantReach)
		}
	})
}

func abs32(x float32) float32 { return max(x, -x) }
