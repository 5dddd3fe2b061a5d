package safetensors

// Dtype is the type of a tensor's elements, as a header names it. It only says how
// bytes are laid out. Whether they are codes of a narrower type, several of which may
// share a byte, is known to package dtype, whose types name a Dtype as their storage.
// Dtypes are ordered as the reference writer ranks them; the zero value is not a dtype.
type Dtype uint8

// The dtypes in ascending order.
const (
	_           Dtype = iota
	BOOL              // one byte, 0 or 1
	F4                // 4-bit float E2M1, two to a byte
	F6_E2M3           // 6-bit float, four to three bytes
	F6_E3M2           // 6-bit float, four to three bytes
	U8                // unsigned 8-bit integer
	I8                // signed 8-bit integer
	F8_E5M2           // 8-bit float with infinities
	F8_E4M3           // 8-bit float without infinities ("fn")
	F8_E8M0           // 8-bit power of two, unsigned
	F8_E4M3FNUZ       // 8-bit float without infinities and negative zero
	F8_E5M2FNUZ       // 8-bit float without infinities and negative zero
	I16               // signed 16-bit integer
	U16               // unsigned 16-bit integer
	F16               // IEEE 754 half precision
	BF16              // bfloat16
	I32               // signed 32-bit integer
	U32               // unsigned 32-bit integer
	F32               // IEEE 754 single precision
	C64               // complex number of two F32
	F64               // IEEE 754 double precision
	I64               // signed 64-bit integer
	U64               // unsigned 64-bit integer
)

var dtypes = [...]struct {
	name string
	bits int
}{
	BOOL:        {"BOOL", 8},
	F4:          {"F4", 4},
	F6_E2M3:     {"F6_E2M3", 6},
	F6_E3M2:     {"F6_E3M2", 6},
	U8:          {"U8", 8},
	I8:          {"I8", 8},
	F8_E5M2:     {"F8_E5M2", 8},
	F8_E4M3:     {"F8_E4M3", 8},
	F8_E8M0:     {"F8_E8M0", 8},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 8},
	F8_E5M2FNUZ: {"F8_E5M2FNUZ", 8},
	I16:         {"I16", 16},
	U16:         {"U16", 16},
	F16:         {"F16", 16},
	BF16:        {"BF16", 16},
	I32:         {"I32", 32},
	U32:         {"U32", 32},
	F32:         {"F32", 32},
	C64:         {"C64", 64},
	F64:         {"F64", 64},
	I64:         {"I64", 64},
	U64:         {"U64", 64},
}

var dtypeByName = func() map[string]Dtype {
	m := make(map[string]Dtype, len(dtypes))
	for d := BOOL; d.valid(); d++ {
		m[dtypes[d].name] = d
	}
	return m
}()

func (d Dtype) valid() bool { return d > 0 && int(d) < len(dtypes) }

// Bits returns the size of one element in bits, 0 if d is not a dtype.
func (d Dtype) Bits() int {
	if !d.valid() {
		return 0
	}
	return dtypes[d].bits
}

// String returns the name of d in a header, such as "BF16".
func (d Dtype) String() string {
	if !d.valid() {
		return "invalid dtype"
	}
	return dtypes[d].name
}

// ParseDtype returns the dtype with that name in a header. The error is [ErrInvalid].
func ParseDtype(s string) (Dtype, error) {
	if d, ok := dtypeByName[s]; ok {
		return d, nil
	}
	return 0, errorOf(ErrInvalid, "unknown dtype %s", quoted(s))
}
