package kernel

import (
	"encoding/binary"
	"math"
)

// Errors sums up the errors of values that are replaced by others, in double precision
// and in 16 lanes: pair i of a call is added to lane i mod 16.
type Errors struct {
	squares [errorLanes]float64 // value²
	errors  [errorLanes]float64 // (value - other)²
	most    [errorLanes]float64 // the greatest |value - other|, ignoring NaN
}

const errorLanes = 16

// Add adds pairs of values, given as raw bytes, and the others that replace them.
func (e *Errors) Add(values []byte, raw Raw, others []float32) { active.errors[raw](e, values, others) }

// Sums returns Σ value², Σ (value - other)² and the greatest |value - other|, which is
// NaN if any difference is.
func (e *Errors) Sums() (squares, errors, most float64) {
	a, b, m := e.squares, e.errors, e.most
	for n := errorLanes / 2; n > 0; n /= 2 {
		for i := range n {
			a[i] += a[i+n]
			b[i] += b[i+n]
			m[i] = max(m[i], m[i+n])
		}
	}
	if b[0] != b[0] {
		m[0] = b[0]
	}
	return a[0], b[0], m[0]
}

func (e *Errors) add(lane int, value, other float32) {
	v, d := float64(value), float64(value)-float64(other)
	e.squares[lane] += float64(v * v)
	e.errors[lane] += float64(d * d)
	if d = math.Abs(d); d > e.most[lane] {
		e.most[lane] = d
	}
}

// errorsOf returns the portable Errors.Add for one form of raw values.
func errorsOf(raw Raw) func(e *Errors, values []byte, others []float32) {
	if raw == RawBF16 {
		return func(e *Errors, values []byte, others []float32) {
			values = values[:2*len(others)]
			for i, other := range others {
				e.add(i%errorLanes, math.Float32frombits(uint32(binary.LittleEndian.Uint16(values[2*i:]))<<16), other)
			}
		}
	}
	return func(e *Errors, values []byte, others []float32) {
		values = values[:4*len(others)]
		for i, other := range others {
			e.add(i%errorLanes, math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:])), other)
		}
	}
}
