package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
)

// valuesUnderTest has those of every form, and how many bits their codes have.
func valuesUnderTest() (list []*Values, bits []uint32) {
	add := func(v *Values, n uint32) { list, bits = append(list, v), append(bits, n) }
	add(IntValues(0, 0), 8)
	add(IntValues(0x80, -128), 8)
	add(IntValues(0, -4), 3)
	for _, f := range []*Small{E4M3, E5M2, E4M3FNUZ, E5M2FNUZ, E2M1} {
		add(SmallValues(f), uint32(math.Ilogb(float64(f.SignBit)))+1)
	}
	for _, p := range packedFormats() {
		if p.Bits <= 8 {
			add(PackedValues(p), p.Bits)
		}
	}
	return list, bits
}

func valueOps() (list []op) {
	values, bits := valuesUnderTest()
	for i, v := range values {
		for _, size := range groupSizes {
			if i > 3 && size != 0 && size != 7 && size != 48 {
				continue // how groups are cut is that of whole numbers
			}
			for _, from := range []bool{false, true} {
				list = append(list, op{fmt.Sprint("decodeBytes ", i, size, from), func(k *set, b buffers) {
					groups, group := b.grouped(size)
					codes := b.byteCodes()[:groups*group]
					for j := range codes {
						codes[j] &= 1<<bits[i] - 1
					}
					scales, zeros := slices.Clone(b.x[:groups]), []float32(nil)
					if from {
						zeros = slices.Clone(b.x[len(b.x)-groups:])
					}
					k.decodeBytes(b.x, codes, scales, zeros, group, v)
				}})
			}
		}
	}
	for size := 1; size <= 8; size++ {
		m := NewMerge(size)
		for i := range 8 {
			m.Add(7*i, uint64(0x0102040810204080)>>i&(1<<(8*size-1)-1))
		}
		list = append(list, op{fmt.Sprint("split ", size), func(k *set, b buffers) {
			n := len(b.codes) / 8
			k.split(b.byteCodes()[:8*n], bytes.Clone(b.bytes[:n*size]), m) // reading beyond would be a fault
		}})
	}
	for _, n := range []int{1, 2, 15, 16, 17, 256} {
		list = append(list, op{fmt.Sprint("lookUp ", n), func(k *set, b buffers) {
			codes, levels := b.byteCodes(), append(awkward(), awkward()...)[:n]
			for i := range codes {
				if n <= 16 {
					codes[i] &= 15
				}
			}
			k.lookUp(b.x, codes, levels)
		}})
	}
	list = append(list,
		op{"roundBF16", func(k *set, b buffers) { k.roundBF16(b.x) }},
		op{"roundF16", func(k *set, b buffers) { k.roundF16(b.x) }})
	for name, raw := range raws {
		list = append(list, op{"errors " + name, func(k *set, b buffers) {
			others := slices.Clone(b.x)
			slices.Reverse(others)
			b.fill(raw)
			e := new(Errors)
			k.errors[raw](e, b.bytes[:len(others)*raw.Bytes()], others)
			for i, sum := range slices.Concat(e.squares[:], e.errors[:], e.most[:]) {
				if sum != sum {
					sum = math.NaN()
				}
				if 8*i+8 <= len(b.bytes) {
					binary.LittleEndian.PutUint64(b.bytes[8*i:], math.Float64bits(sum))
				}
			}
		}})
	}
	return list
}

// TestValuesOfAllCodes: weights would be restored to other values than those
// that the codes stand for.
func TestValuesOfAllCodes(t *testing.T) {
	list, bits := valuesUnderTest()
	eachSet(t, func(t *testing.T, k *set) {
		for i, v := range list {
			codes := make([]byte, 1<<bits[i])
			for c := range codes {
				codes[c] = byte(c)
			}
			dst := make([]float32, len(codes))
			k.decodeBytes(dst, codes, []float32{1}, nil, len(codes), v)
			for c, got := range dst {
				if want := v.At(byte(c)); math.Float32bits(got) != math.Float32bits(want) && (got == got || want == want) {
					t.Errorf("values %d: code %#x is %v, want %v", i, c, got, want)
				}
			}
		}
	})
	for code, want := range map[byte]float32{0x80: 0, 0x7F: 255, 0xFF: 127} {
		if got := IntValues(0x80, 0).At(code); got != want {
			t.Errorf("code %#x is %v, want %v", code, got, want)
		}
	}
}

// TestErrorsAddUp: verify would report other errors than there are.
func TestErrorsAddUp(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		value, other          float32
		squares, errors, most float64
	}{
		{3, 1, 9, 4, 2},
		{1, 3, 1, 4, 2},
		{1, nan, 1, math.NaN(), math.NaN()},
		{inf, 1, math.Inf(1), math.Inf(1), math.Inf(1)},
		{inf, inf, math.Inf(1), math.NaN(), math.NaN()},
	} {
		eachSet(t, func(t *testing.T, k *set) {
			for n := 1; n < 70; n++ {
				values, others := make([]float32, n), make([]float32, n)
				values[n/2], others[n/2] = c.value, c.other
				e := new(Errors)
				k.errors[RawF32](e, AsBytes(values), others)
				squares, errors, most := e.Sums()
				for i, got := range []float64{squares, errors, most} {
					if want := []float64{c.squares, c.errors, c.most}[i]; got != want && (got == got || want == want) {
						t.Fatalf("%v and %v among %d: %v, want %v", c.value, c.other, n, got, want)
					}
				}
			}
		})
	}
}
