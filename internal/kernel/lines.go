package kernel

// LineLanes is how many groups are fitted at a time, one in each lane. Their values
// are stored as rows of one value of each group.
const LineLanes = 16

// Lanes are one number for each of the groups.
type Lanes [LineLanes]float32

// A Line restores the code q as From + Scale·q.
type Line struct{ From, Scale Lanes }

// LineSums are what codes leave of the values of each group: with t a value in units of
// the scale, q the integer nearest to it among the codes, r = t - q and m the value's
// weight, the sums of m·q, m·q², m·r, m·r² and m·r·q.
type LineSums struct{ Q, QQ, R, RR, RQ Lanes }

// SumLines sets the sums for values x [n, 16] and codes from lo to hi, where inverse is
// 1 over the scale. Weights are like x; nil is 1 for each value. Sums begin with zero
// and add one value after the other; nothing is fused.
func SumLines(sums *LineSums, x, weights []float32, from, inverse *Lanes, lo, hi float32) {
	if weights == nil {
		active.sumLines(sums, x, from, inverse, lo, hi)
	} else {
		active.sumWeightedLines(sums, x, weights, from, inverse, lo, hi)
	}
}

// magic is where single precision has steps of 1, so that adding it rounds to the
// nearest integer, ties to even.
const magic = 0x1.8p23

func sumLines(sums *LineSums, x []float32, from, inverse *Lanes, lo, hi float32) {
	for lane := range LineLanes {
		var q1, q2, r1, r2, rq float32
		from, inverse := from[lane], inverse[lane]
		for i := lane; i < len(x); i += LineLanes {
			q, r := nearestCode(x[i], from, inverse, lo, hi)
			q1 += q
			q2 += float32(q * q)
			r1 += r
			r2 += float32(r * r)
			rq += float32(r * q)
		}
		sums.Q[lane], sums.QQ[lane], sums.R[lane], sums.RR[lane], sums.RQ[lane] = q1, q2, r1, r2, rq
	}
}

func sumWeightedLines(sums *LineSums, x, weights []float32, from, inverse *Lanes, lo, hi float32) {
	weights = weights[:len(x)]
	for lane := range LineLanes {
		var q1, q2, r1, r2, rq float32
		from, inverse := from[lane], inverse[lane]
		for i := lane; i < len(x); i += LineLanes {
			q, r := nearestCode(x[i], from, inverse, lo, hi)
			mq, mr := float32(weights[i]*q), float32(weights[i]*r)
			q1 += mq
			q2 += float32(mq * q)
			r1 += mr
			r2 += float32(mr * r)
			rq += float32(mr * q)
		}
		sums.Q[lane], sums.QQ[lane], sums.R[lane], sums.RR[lane], sums.RQ[lane] = q1, q2, r1, r2, rq
	}
}

// nearestCode returns the code of a value, and how far it is from it in units of the
// scale. NaN counts as lo.
func nearestCode(x, from, inverse, lo, hi float32) (q, r float32) {
	t := float32(float32(x-from) * inverse)
	q = lo
	if t > lo {
		q = t
	}
	if !(q < hi) {
		q = hi
	}
	q = float32(q+magic) - magic
	return q, t - q
}

// LineFit is a line for each group, with the error that it leaves to codes found
// before: Σ m·(x - From - Scale·q)². Mean is that of the codes.
type LineFit struct {
	Line
	Error, Mean Lanes
}

// LineWeights are the sums of each group's weights, and 1 over them.
type LineWeights struct{ Weights, Inverses Lanes }

// FitLines finds by least squares the lines that restore best the codes for which sums
// were found with the line old. Where through is set, lines keep their From.
func FitLines(fit *LineFit, sums *LineSums, n *LineWeights, old *Line, through bool) {
	active.fitLines(fit, sums, n, old, through)
}

func fitLines(fit *LineFit, sums *LineSums, n *LineWeights, old *Line, through bool) {
	for i := range LineLanes {
		q, r, weight, inverse := sums.Q[i], sums.R[i], n.Weights[i], n.Inverses[i]
		if through {
			q, r = 0, 0
		}
		det := float32(weight*sums.QQ[i]) - float32(q*q)
		slope := float32(0)
		if det > 0 {
			slope = (float32(weight*sums.RQ[i]) - float32(q*r)) / det
		}
		shift := (r - float32(slope*q)) * inverse
		scale := old.Scale[i]
		left := (sums.RR[i] - float32(slope*sums.RQ[i])) - float32(shift*r)
		fit.Error[i] = float32(left*scale) * scale
		fit.From[i] = old.From[i] + float32(shift*scale)
		fit.Scale[i] = scale + float32(slope*scale)
		fit.Mean[i] = q * inverse
	}
}

// LineErrors sets the error of each group, Σ m·(x - zero - step·q)², where q is the
// integer from lo to hi nearest to (x - from)/scale, as [EncodeInts] finds it for the
// line by, and zero and step are those of the line restored.
func LineErrors(errors *Lanes, x, weights []float32, by, restored *Line, lo, hi float32) {
	if weights == nil {
		active.lineErrors(errors, x, by, restored, lo, hi)
	} else {
		active.weightedLineErrors(errors, x, weights, by, restored, lo, hi)
	}
}

func lineErrors(errors *Lanes, x []float32, by, restored *Line, lo, hi float32) {
	for lane := range LineLanes {
		sum := float32(0)
		for i := lane; i < len(x); i += LineLanes {
			d := lineError(x[i], by, restored, lane, lo, hi)
			sum += float32(d * d)
		}
		errors[lane] = sum
	}
}

func weightedLineErrors(errors *Lanes, x, weights []float32, by, restored *Line, lo, hi float32) {
	weights = weights[:len(x)]
	for lane := range LineLanes {
		sum := float32(0)
		for i := lane; i < len(x); i += LineLanes {
			d := lineError(x[i], by, restored, lane, lo, hi)
			sum += float32(float32(weights[i]*d) * d)
		}
		errors[lane] = sum
	}
}

func lineError(x float32, by, restored *Line, lane int, lo, hi float32) float32 {
	t := float32(x-by.From[lane]) / by.Scale[lane]
	q := lo
	if t > lo {
		q = t
	}
	if !(q < hi) {
		q = hi
	}
	q = float32(q+magic) - magic
	return x - (float32(restored.Scale[lane]*q) + restored.From[lane])
}

// KeepLines puts a fit among the two best of each lane, the better one first, if its
// error is less. Of equal ones the earlier stays.
func KeepLines(best *[2]LineFit, fit *LineFit) { active.keepLines(best, fit) }

func keepLines(best *[2]LineFit, fit *LineFit) {
	for i, e := range fit.Error {
		switch {
		case e < best[0].Error[i]:
			best[1].setLane(&best[0], i)
			best[0].setLane(fit, i)
		case e < best[1].Error[i]:
			best[1].setLane(fit, i)
		}
	}
}

func (f *LineFit) setLane(from *LineFit, i int) {
	f.From[i], f.Scale[i], f.Error[i], f.Mean[i] = from.From[i], from.Scale[i], from.Error[i], from.Mean[i]
}
