package dtype

import (
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/safetensors"
)

// table derives the types: integers and floats of 1 to 16 bits, then the few of 32
// bits.
func table() []*Type {
	var rows []*Type
	for bits := 1; bits <= 16; bits++ {
		if bits > 1 {
			rows = append(rows, integer(bits, false))
		}
		rows = append(rows, natives(bits)...)
		for e := 1; e <= min(5, bits-1); e++ {
			rows = append(rows, packed(bits, e, false))
		}
		rows = append(rows, integer(bits, true))
		for e := 1; e <= min(5, bits); e++ {
			rows = append(rows, packed(bits, e, true))
		}
	}
	rows = append(rows, integer(32, false), integer(32, true))
	return append(rows, natives(32)...)
}

func integer(bits int, unsigned bool) *Type {
	t := &Type{Class: Integer, Bits: bits, Unsigned: unsigned, Storage: intStorage(bits, unsigned)}
	if unsigned {
		t.Name, t.Mantissa = fmt.Sprintf("uint%d", bits), bits
		t.Max = math.Ldexp(1, bits) - 1
	} else {
		t.Name, t.Mantissa = fmt.Sprintf("int%d", bits), bits-1
		t.Min, t.Max = -math.Ldexp(1, bits-1), math.Ldexp(1, bits-1)-1
	}
	t.Divisor = t.Max
	if unsigned && bits > 8 && bits < 16 {
		t.Divisor = math.Ldexp(1, bits) // SDNQ's value, see Type.Divisor
	}
	return t
}

// intStorage returns the dtype in which integers of that width are stored: 2 to 7 bits
// share bytes, 9 to 15 bits share signed 16-bit words, and SDNQ stores eight one-bit
// codes in a 64-bit word.
func intStorage(bits int, unsigned bool) safetensors.Dtype {
	switch {
	case bits == 1:
		return safetensors.I64
	case bits < 8, bits == 8 && unsigned:
		return safetensors.U8
	case bits == 8:
		return safetensors.I8
	case bits == 16 && unsigned:
		return safetensors.U16
	case bits <= 16:
		return safetensors.I16
	case unsigned:
		return safetensors.U32
	}
	return safetensors.I32
}

// packed returns a float type of a sign bit (unless unsigned), e exponent bits and
// mantissa bits for the rest. It has subnormals and no infinities; its largest value is
// 2^(2^(e-1)) · (2 - 2^-m).
func packed(bits, e int, unsigned bool) *Type {
	m, suffix := bits-1-e, "fn"
	if unsigned {
		m, suffix = bits-e, "fnu"
	}
	t := &Type{
		Name:  fmt.Sprintf("float%d_e%dm%d%s", bits, e, m, suffix),
		Class: Packed, Bits: bits, Exponent: e, Mantissa: m, Unsigned: unsigned,
		Max:     math.Ldexp(2-math.Ldexp(1, -m), 1<<(e-1)),
		Storage: floatStorage(bits),
	}
	if t.Name == "float8_e4m3fn" {
		t.Name = "float8_e4m3fn_sdnq" // the name without _sdnq is the native type
	}
	if !unsigned {
		t.Min = -t.Max
	}
	t.Divisor = t.Max
	return t
}

func floatStorage(bits int) safetensors.Dtype {
	if bits == 16 {
		return safetensors.U16
	}
	return intStorage(bits, true)
}

// natives returns the float types of the safetensors format with that many bits.
func natives(bits int) []*Type {
	var rows []*Type
	for _, t := range nativeRows {
		if t.Bits == bits {
			t.Class, t.Divisor, t.Min = Native, t.Max, -t.Max
			rows = append(rows, &t)
		}
	}
	return rows
}

// nativeRows have the bounds from SDNQ's table, on which its scales depend. For types
// of 8 exponent bits they are cut to six digits there.
var nativeRows = []Type{
	{Name: "float8_e4m3fn", Bits: 8, Exponent: 4, Mantissa: 3, Max: 448, Storage: safetensors.F8_E4M3},
	{Name: "float8_e5m2", Bits: 8, Exponent: 5, Mantissa: 2, Max: 57344, Storage: safetensors.F8_E5M2},
	{Name: "float8_e8m0fnu", Bits: 8, Exponent: 8, Mantissa: 0, Max: 1.70141e38, Storage: safetensors.F8_E8M0},
	{Name: "float8_e4m3fnuz", Bits: 8, Exponent: 4, Mantissa: 3, Max: 240, Storage: safetensors.F8_E4M3FNUZ},
	{Name: "float8_e5m2fnuz", Bits: 8, Exponent: 5, Mantissa: 2, Max: 57344, Storage: safetensors.F8_E5M2FNUZ},
	{Name: "float16", Bits: 16, Exponent: 5, Mantissa: 10, Max: 65504, Storage: safetensors.F16},
	{Name: "bfloat16", Bits: 16, Exponent: 8, Mantissa: 7, Max: 3.38953e38, Storage: safetensors.BF16},
	{Name: "float32", Bits: 32, Exponent: 8, Mantissa: 23, Max: 3.40282e38, Storage: safetensors.F32},
}
