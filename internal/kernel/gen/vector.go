package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set. Kernels work on steps of 16 values: one vector of
// AVX-512, two of AVX2.
type isa struct {
	name string
	wide bool

	made    *[]string // functions so far
	short   bool      // vectors of 128 bits
	half256 bool      // vectors of 256 bits in AVX-512
}

// step is how many values a turn of a kernel's loop takes.
const step = 16

// form is how values lie in memory.
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

// fit is what of a wider register fits v.
func (v isa) fit(o Op) Op {
	if r, wider := o.(VecVirtual); wider && v.short {
		return r.AsX()
	}
	return o
}

// width is the bytes of a vector.
func (v isa) width() int {
	switch {
	case v.short:
		return 16
	case v.wide:
		return 64
	}
	return 32
}

// half is a register of half the width.
func (v isa) half(r VecVirtual) Register {
	if v.wide {
		return r.AsY()
	}
	return r.AsX()
}

// function begins one, named after the set.
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

// load widens values at m to single precision.
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

// storeBytes writes the low bytes of 16 whole numbers from 0 to 255, or, in
// AVX-512, of any.
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

// loop runs body while n, of which each turn takes one, is above zero.
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

// base is where a parameter points to.
func base(name string) Mem { return Mem{Base: param(name)} }

// copied is a register with the same content.
func copied(r Register) Register {
	c := GP64()
	MOVQ(r, c)
	return c
}

func described(format string, args ...any) string { return fmt.Sprintf(format, args...) }
