package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set. Kernels work on steps of 16 values: one vector of AVX-512,
// two of AVX2.
type isa struct {
	name string
	wide bool

	made    *[]string // names of the functions written so far
	short   bool      // use vectors of 128 bits
	half256 bool      // use vectors of 256 bits in AVX-512
}

// step is how many values a turn of a kernel's loop takes.
const step = 16

// form is how values are stored in memory.
type form struct {
	name string
	size int // bytes of a value
}

var (
	bf16 = form{"BF16", 2}
	f32  = form{"F32", 4}
)

func (v isa) vec() VecVirtual {
	switch {
	case v.short:
		return XMM()
	case v.wide:
		return ZMM()
	}
	return YMM()
}

// fit returns the part of a wider register that is as wide as v's vectors.
func (v isa) fit(o Op) Op {
	if r, wider := o.(VecVirtual); wider && v.short {
		return r.AsX()
	}
	return o
}

// width returns the bytes of a vector.
func (v isa) width() int {
	switch {
	case v.short:
		return 16
	case v.wide:
		return 64
	}
	return 32
}

// half returns a register of half the width.
func (v isa) half(r VecVirtual) Register {
	if v.wide {
		return r.AsY()
	}
	return r.AsX()
}

// function begins a function, whose name gets that of the set.
func (v isa) function(name, signature string, doc ...string) {
	v.begin(name, NOSPLIT, signature, doc)
}

func (v isa) begin(name string, how attr.Attribute, signature string, doc []string) {
	*v.made = append(*v.made, name)
	TEXT(name+v.name, how, signature)
	Pragma("noescape")
	Doc(doc...)
}

// broadcast fills a vector with the 32-bit value at m.
func (v isa) broadcast(m Mem) VecVirtual {
	r := v.vec()
	VBROADCASTSS(m, r)
	return r
}

// constant fills a vector with a 32-bit value.
func (v isa) constant(bits uint32) VecVirtual {
	g, r := GP32(), v.vec()
	MOVL(U32(bits), g)
	VMOVD(g, r.AsX())
	VPBROADCASTD(r.AsX(), r)
	return r
}

// constant16 fills a vector with a 16-bit value.
func (v isa) constant16(bits uint16) VecVirtual {
	g, r := GP32(), v.vec()
	MOVL(U32(uint32(bits)), g)
	VMOVD(g, r.AsX())
	VPBROADCASTW(r.AsX(), r)
	return r
}

// load loads the values at m, widened to single precision.
func (v isa) load(raw form, m Mem) VecVirtual {
	r := v.vec()
	if raw == f32 {
		VMOVUPS(m, r)
		return r
	}
	VPMOVZXWD(m, r)
	VPSLLD(U8(16), r, r)
	return r
}

func (v isa) and(a, b, to Op) { v.logic(VPANDD, VPAND, a, b, to) }
func (v isa) or(a, b, to Op)  { v.logic(VPORD, VPOR, a, b, to) }
func (v isa) xor(a, b, to Op) { v.logic(VPXORD, VPXOR, a, b, to) }

func (v isa) logic(wide func(...Op), narrow func(a, b, to Op), a, b, to Op) {
	if v.wide {
		wide(a, b, to)
	} else {
		narrow(a, b, to)
	}
}

// storeBytes writes the low bytes of 16 integers, which must be 0 to 255 except in
// AVX-512.
func (v isa) storeBytes(codes []VecVirtual, to Mem) {
	if v.wide {
		VPMOVDB(codes[0], to)
		return
	}
	words, high := codes[0], XMM()
	VPACKUSDW(codes[1], codes[0], words)
	VPERMQ(U8(0xD8), words, words)
	VEXTRACTI128(U8(1), words, high)
	VPACKUSWB(high, words.AsX(), high)
	VMOVDQU(high, to)
}

// loop runs body while n, from which each turn subtracts one, is above zero.
func loop(name string, n Register, body func()) {
	TESTQ(n, n)
	JZ(LabelRef(name + "Done"))
	Label(name)
	body()
	DECQ(n)
	JNZ(LabelRef(name))
	Label(name + "Done")
}

func param(name string) Register { return Load(Param(name), GP64()) }

// base returns the memory to which a parameter points.
func base(name string) Mem { return Mem{Base: param(name)} }

// copied returns a register with the same content.
func copied(r Register) Register {
	c := GP64()
	MOVQ(r, c)
	return c
}

func described(format string, args ...any) string { return fmt.Sprintf(format, args...) }
